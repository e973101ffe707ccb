"""Events that the watch detects and publishes, and containers that it does not touch."""

from reliability.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="stops-are-crashes",
        breaks="every stop that was intended is told as a crash",
        file="rtmanager/adapters/postgres/findings.py",
        old="    if _is_busy(connection, finding.game_id):\n        raise _Undo(WriteResult.BUSY)\n",
        new="",
        module="test_store",
    ),
    Mutant(
        name="deaths-unheard",
        breaks="a crash is noticed with the next pass of the reconciler, minutes later",
        file="rtmanager/workers/reconcile/listener.py",
        old="        which, none = frozenset({event.container_id}), frozenset[str]()\n",
        new="        which, none = frozenset({event.container_id}), frozenset[str]()\n"
        "        if event.what is ContainerEventKind.DIE:\n"
        "            return\n",
        module="test_health",
    ),
    Mutant(
        name="crash-without-reason",
        breaks="nobody can see what an engine said before it crashed",
        file="rtmanager/operations/tools.py",
        old="        return runtime.log_tail(container_id)\n",
        new='        return ""\n',
        module="test_health",
    ),
    Mutant(
        name="alarm-each-time",
        breaks="a paused game is told as unhealthy with every look",
        file="rtmanager/adapters/postgres/sql/findings.sql",
        old="   OR (alarms.mark <> excluded.mark\n",
        new="   OR (true\n",
        module="test_health",
    ),
    Mutant(
        name="threshold-ignored",
        breaks="one slow answer of an engine is told as a failure",
        file="rtmanager/workers/prober.py",
        old="before + 1 >= self._threshold",
        new="before + 1 >= 1",
        module="test_health",
    ),
    Mutant(
        name="anything-adopted",
        breaks="a container that only looks like a game becomes one",
        file="rtmanager/domain/drift.py",
        old="    return _why_astray(view, game_id, placement.network) or _why_wrong_image(view)\n",
        new="    return None\n",
        module="test_reconcile",
    ),
    Mutant(
        name="disposal-not-logged",
        breaks="the log does not say why a running game is removed",
        file="rtmanager/domain/drift.py",
        old="        log=(_log(OpKind.RECONCILE_DISPOSE, record, container_id, observation.at),),\n",
        new="",
        module="test_reconcile",
    ),
    Mutant(
        name="no-first-pass",
        breaks="jobs are done on records that were wrong when the service started",
        file="rtmanager/bootstrap/watchers.py",
        old="        if not self.drift_scan.first_pass():\n",
        new="        if False:\n",
        module="test_reconcile",
    ),
    Mutant(
        name="retention-at-once",
        breaks="the container of a game is removed as soon as it is stopped",
        file="rtmanager/workers/retention.py",
        old="self._findings.now() - self._keep",
        new="self._findings.now()",
        module="test_retention",
    ),
    Mutant(
        name="restart-against-a-stop",
        breaks="a crashed game that was stopped meanwhile is started again",
        file="rtmanager/adapters/postgres/sql/endings.sql",
        old="WHERE game_id IN (SELECT game_id FROM ended WHERE NOT keeps_plan AND next_try IS NULL)",
        new="WHERE false",
        module="test_crash_restart",
    ),
    Mutant(
        name="budget-without-end",
        breaks="a game that crashes at once is restarted for ever",
        file="rtmanager/domain/crash.py",
        old="        if restarts >= self.budget:\n",
        new="        if False:\n",
        module="test_crash_restart",
    ),
)
