"""Messages to the Lobby and Notification, and the order of jobs."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "failure-not-answered",
        "a start that failed gets no result",
        Edit(
            "operations/progress.py",
            "        if self.operation.from_stream:\n",
            "        if self.operation.from_stream and not failed:\n",
        ),
        check=module("test_notification"),
    ),
    Mutant(
        "replay-not-answered",
        "a job that finds nothing to do gets no result",
        Edit(
            "operations/progress.py",
            "        if self.operation.from_stream:\n",
            "        if self.operation.from_stream and code is not ErrorCode.REPLAY_NO_OP:\n",
        ),
        check=module("test_replay"),
    ),
    Mutant(
        "calls-answered-as-jobs",
        "the Lobby gets results of jobs that it never sent",
        Edit(
            "operations/progress.py",
            "        if self.operation.from_stream:\n",
            "        if self.operation.request.game_id:\n",
        ),
        check=module("test_notification"),
    ),
    Mutant(
        "intent-missing",
        "a start whose configuration is wrong requests no notification",
        Edit("domain/messages.py", '    ErrorCode.START_CONFIG_INVALID: "runtime.start_config_invalid",\n', ""),
        check=module("test_notification"),
    ),
    Mutant(
        "intent-not-idempotent",
        "one failed start requests two notifications when its job is tried twice",
        Edit(
            "domain/messages.py",
            "{notification_type}:{game_id}:{source_ref}",
            "{notification_type}:{game_id}:{epoch_ms(now)}",
        ),
        check=module("test_notification"),
    ),
    Mutant(
        "event-missing",
        "no health event is published of a container that was started",
        Edit(
            "adapters/postgres/changes.py",
            "    messages = [*(health_message(event) for event in changes.health if event.published), "
            "*changes.messages]\n",
            "    messages = [*changes.messages]\n",
        ),
        check=module("test_jobs"),
    ),
    Mutant(
        "watch-event-missing",
        "no health event is published of what the watch finds",
        Edit(
            "adapters/postgres/changes.py",
            '"keeps_plan": not cancels, "plan": plan}\n',
            '"keeps_plan": not cancels, "plan": plan, "messages": []}\n',
        ),
        check=module("test_health"),
    ),
    Mutant(
        "snapshot-missing",
        "the health of a game is what it was before its last event",
        Edit(
            "adapters/postgres/changes.py",
            '        "snapshot": _snapshot(changes.health[-1]) if changes.health else None,\n',
            '        "snapshot": None,\n',
        ),
        check=module("test_jobs"),
    ),
    Mutant(
        "watch-snapshot-missing",
        "the health of a game is what it was before the watch found otherwise",
        Edit(
            "adapters/postgres/changes.py",
            '"keeps_plan": not cancels, "plan": plan}\n',
            '"keeps_plan": not cancels, "plan": plan, "snapshot": None}\n',
        ),
        check=module("test_health"),
    ),
    Mutant(
        "dead-letter-lost",
        "an entry that names no game vanishes",
        Edit(
            "adapters/postgres/inbox.py",
            "        if not letters:\n",
            "        if not letters or not self._connection.closed:\n",
        ),
        check=module("test_jobs_malformed"),
    ),
    Mutant(
        "stop-before-start",
        "of two jobs with one id the stop is done first, and the game runs on for ever",
        Edit(
            "domain/jobs.py",
            "for rank, stream in enumerate(JOB_STREAMS)}",
            "for rank, stream in enumerate(reversed(JOB_STREAMS))}",
        ),
        check=module("test_jobs_order"),
    ),
    Mutant(
        "backlog-overtaken",
        "behind a long backlog of starts a game's stop is done before its start",
        Edit(
            "domain/jobs.py",
            "    horizons = [batch.entries[-1].position for batch in batches if not batch.drained]\n",
            "    horizons: list[tuple[EntryId, int]] = []\n",
        ),
        check=module("test_jobs_order"),
    ),
    Mutant(
        "acknowledged-too-early",
        "a job that is read and not yet stored when PostgreSQL fails is lost",
        Edit(
            "workers/ingest.py",
            "            lock.accept(jobs)\n",
            "            self._streams.acknowledge(ready)\n            lock.accept(jobs)\n",
        ),
        check=module("test_crash"),
    ),
    Mutant(
        "field-twice-taken",
        "of a field that is given twice the last one counts, in silence",
        Edit("domain/jobs.py", "    if entry.repeated:\n", "    if entry.repeated and not fields:\n"),
        check=module("test_jobs_large"),
    ),
    Mutant(
        "large-entry-taken",
        "a job is done of whose entry only a part was read",
        Edit(
            "domain/jobs.py",
            "    if entry.excess is not None:\n        return (\n",
            "    if entry.excess is not None and not fields:\n        return (\n",
        ),
        check=module("test_jobs_large"),
    ),
    Mutant(
        "intent-left-out-uncounted",
        "no summary is published of failures above the limit of intents",
        Edit(
            "workers/outbox.py",
            "        if counts:\n            lease.count_intents(counts)\n",
            "        if counts and not left_out:\n            lease.count_intents(counts)\n",
        ),
        check=module("test_jobs_large"),
    ),
)
