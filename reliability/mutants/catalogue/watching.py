"""Events that the watch detects and publishes, and containers that it does not touch."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "stops-are-crashes",
        "every requested stop is reported as a crash",
        Edit(
            "adapters/postgres/findings.py",
            "    if _is_busy(connection, finding.game_id):\n        raise _Undo(WriteResult.BUSY)\n",
            "",
        ),
        check=module("test_store"),
    ),
    Mutant(
        "deaths-not-received",
        "a crash is noticed with the next pass of the reconciler, minutes later",
        Edit(
            "workers/reconcile/listener.py",
            "        which, none = frozenset({event.container_id}), frozenset[str]()\n",
            "        which, none = frozenset({event.container_id}), frozenset[str]()\n"
            "        if event.what is ContainerEventKind.DIE:\n"
            "            return\n",
        ),
        check=module("test_health"),
    ),
    Mutant(
        "crash-without-reason",
        "the log of an engine that crashed is not kept",
        Edit("operations/tools.py", "        return runtime.log_tail(container_id)\n", '        return ""\n'),
        check=module("test_health"),
    ),
    Mutant(
        "alarm-each-time",
        "a paused game is reported as unhealthy by every inspection",
        Edit("adapters/postgres/sql/findings.sql", "   OR (alarms.mark <> excluded.mark\n", "   OR (true\n"),
        check=module("test_health"),
    ),
    Mutant(
        "threshold-ignored",
        "one slow answer of an engine is reported as a failure",
        Edit("workers/prober.py", "before + 1 >= self._threshold", "before + 1 >= 1"),
        check=module("test_health"),
    ),
    Mutant(
        "anything-adopted",
        "a container that only resembles a game is adopted",
        Edit(
            "domain/drift.py",
            "    return _why_astray(view, game_id, placement.network) or _why_wrong_image(view)\n",
            "    return None\n",
        ),
        check=module("test_reconcile"),
    ),
    Mutant(
        "disposal-not-logged",
        "the log does not say why a running game is removed",
        Edit(
            "domain/drift.py",
            "        log=(_log(OpKind.RECONCILE_DISPOSE, record, container_id, observation.at),),\n",
            "",
        ),
        check=module("test_reconcile"),
    ),
    Mutant(
        "no-first-pass",
        "jobs are done on records that were wrong when the service started",
        Edit("bootstrap/watchers.py", "        if not self.drift_scan.first_pass():\n", "        if False:\n"),
        check=module("test_reconcile"),
    ),
    Mutant(
        "retention-at-once",
        "the container of a game is removed as soon as it is stopped",
        Edit("workers/retention.py", "self._findings.now() - self._keep", "self._findings.now()"),
        check=module("test_retention"),
    ),
    Mutant(
        "restart-against-a-stop",
        "a crashed game that was stopped meanwhile is started again",
        Edit(
            "adapters/postgres/sql/changes.sql",
            "WHERE game_id IN (SELECT game_id FROM agreed WHERE NOT keeps_plan AND plan IS NULL)",
            "WHERE false",
        ),
        check=module("test_crash_restart"),
    ),
    Mutant(
        "budget-without-end",
        "a game that crashes at once is restarted for ever",
        Edit("domain/crash.py", "        if restarts >= self.budget:\n", "        if False:\n"),
        check=module("test_crash_restart"),
    ),
)
