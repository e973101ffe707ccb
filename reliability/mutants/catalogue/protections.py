"""The protections, in the order in which a job passes them."""

from reliability.mutants.check import cells, chaos, test
from reliability.mutants.mutant import Edit, Mutant

_QUEUE = "adapters/postgres/sql/queue.sql"
_CHANGES = "adapters/postgres/changes.py"
_REDIS = "adapters/redis_streams.py"

#: The messages of completions: in the same transaction, and in a separate one.
_PUBLISHED_AT_ONCE = """\
        return {row["id"]: row["written"] for row in database.write("finish", SQL["end_operations"], values)}
"""
_PUBLISHED_LATER = """\
        ended = {row["id"]: row["written"] for row in database.write("finish", SQL["end_operations"], values)}
        with database.transaction("finish") as connection:
            add_messages(connection, [message for _, completion in endings for message in completion.messages])
        return ended
"""
#: The begin of the relay's step, and a variant that deletes the messages before Redis has them.
_TURN = """\
        with self._outbox.lease() as lease:
            if lease is not None:
                self._leases.had()
"""
_FORGET_FIRST = """\
                first = lease.due(BATCH, BATCH_BYTES)
                lease.delete([each.message_id for each in first])
        self._streams.publish(1 << 40, first) if lease is not None and first else None
"""
_NOTHING_LISTED = """\
    def _list(self) -> Sequence[ContainerView]:
        try:
            return self._list_all()
        except Exception:
            return []

    def _list_all(self) -> Sequence[ContainerView]:
"""

MUTANTS = (
    Mutant(
        "stored before acknowledged",
        "a job that was read and not stored when its instance was killed is lost",
        Edit(
            "workers/ingest.py",
            "            lock.accept(jobs)\n",
            "            self._streams.acknowledge(ready)\n            lock.accept(jobs)\n",
        ),
        check=cells("start-up", "postgres.ingest.before"),
    ),
    Mutant(
        "unacknowledged entries are read again",
        "a job that was given out when its instance was killed is lost",
        Edit("adapters/redis_reading.py", "cursor, s.given = reply[1], reply[2]", "cursor = reply[1]"),
        check=cells("start-up", "redis.read.after"),
    ),
    Mutant(
        "an entry is known by its id",
        "a job whose acknowledgement was lost is done, and answered, twice",
        Edit(_QUEUE, "ON CONFLICT (stream, entry_ms, entry_seq) WHERE stream IS NOT NULL DO NOTHING;", ";"),
        Edit(
            "adapters/postgres/migrations/0001_initial.sql",
            "CREATE UNIQUE INDEX operations_entry_idx",
            "CREATE INDEX operations_entry_idx",
        ),
        check=cells("stop job", "redis.acknowledge.before"),
    ),
    Mutant(
        "an entry is recognised by its content, too",
        "a job under an id that a lost stream had given before is taken for a known one, and lost",
        Edit(_QUEUE, "                    AND o.entry_digest <> j.digest)", "                    AND false)"),
        check=test("integration.test_redis_failing.IdsGivenAgain"),
    ),
    Mutant(
        "a group that is gone is made again",
        "after Redis was emptied no job is taken over any more",
        Edit(_REDIS, "        self._make_groups()\n        return self._take", "        return self._take"),
        check=test("integration.test_outage.Silence"),
    ),
    Mutant(
        "what the database forgot is read again",
        "a job that a failover of PostgreSQL has lost gets no result",
        Edit("workers/ingest.py", "more=more or self._give_again(lock))\n", "more=more)\n"),
        check=test("integration.test_postgres_failing.FailedOver"),
    ),
    Mutant(
        "one running operation of a game, by an index",
        "two instances work on one game at once",
        Edit(
            "adapters/postgres/migrations/0001_initial.sql",
            "CREATE UNIQUE INDEX operations_one_running_per_game_idx",
            "CREATE INDEX operations_one_running_per_game_idx",
        ),
        check=test("integration.test_store.OneAtATimeTest"),
    ),
    Mutant(
        "orphaned claims are taken over",
        "what an instance was doing when it was killed is never finished",
        Edit("workers/lease.py", "self._queue.reclaim_orphans(", "(lambda live, by_presence: ())("),
        check=cells("stop job", "docker.stop.after"),
    ),
    Mutant(
        "an instance that was killed is recognised by its session",
        "its operations are claimed only when its lease has expired, a minute later",
        Edit("workers/lease.py", "by_presence=by_presence)", "by_presence=False)"),
        check=cells("stop job", "docker.stop.after"),
    ),
    Mutant(
        "the generation of a claim is compared",
        "an instance that was frozen ends an operation that another one has taken over",
        Edit("adapters/postgres/sql/changes.sql", "AND o.generation = e.generation AND", "AND"),
        check=test("integration.test_store.PostgresOwnershipTest"),
    ),
    Mutant(
        "a claim is confirmed before a container is touched",
        "an instance that was frozen starts a game that others stopped since, or stops one that others started",
        Edit("operations/tools.py", "        if not self.owns(operation):\n", "        if operation.generation < 0:\n"),
        check=test("rtmanager.tests.test_executor"),
    ),
    Mutant(
        "what an earlier try left is taken",
        "a start that was cut short when its container ran can never be finished",
        Edit(
            "operations/launch.py",
            "    if operation.generation == 1 or not is_game_id(operation.game_id):\n",
            "    if operation.generation > 0 or not is_game_id(operation.game_id):\n",
        ),
        Edit(
            "domain/container.py",
            "    return NameConflict.TAKE if found.runs(",
            "    return NameConflict.REFUSE if found.runs(",
        ),
        check=cells("start job", "postgres.finish.before"),
    ),
    Mutant(
        "what an earlier try left dead is removed",
        "a start that was cut short before its container ran can never be finished",
        Edit(
            "domain/container.py",
            "    if found.ended:\n        return NameConflict.REMOVE\n",
            "    if found.ended:\n        return NameConflict.REFUSE\n",
        ),
        check=cells("start job", "docker.create.after"),
    ),
    Mutant(
        "what is half done is finished",
        "a restart that loses Docker half way leaves the game stopped",
        Edit(
            "operations/runner.py",
            "                raise PartiallyApplied(error) from error\n",
            "                raise\n",
        ),
        check=cells("restart", "docker.rename.before", "raise"),
    ),
    Mutant(
        "what a restart left unstarted is removed",
        "the new container of a restart that was given up stays for ever",
        Edit("workers/reconcile/game.py", "        if hint.unstarted:\n", "        if False:\n"),
        check=cells("restart", "docker.create.after", "raise"),
    ),
    Mutant(
        "the end is one transaction",
        "a job whose instance is killed at its end gets no result",
        Edit(_CHANGES, '"messages": [_message(message) for message in messages],', '"messages": [],'),
        Edit(_CHANGES, _PUBLISHED_AT_ONCE, _PUBLISHED_LATER),
        check=cells("stop job", "postgres.finish.after"),
    ),
    Mutant(
        "the outbox",
        "a message that Redis did not take is lost",
        Edit("workers/outbox.py", _TURN, f"{_TURN}{_FORGET_FIRST}{_TURN}"),
        check=cells("stop job", "redis.publish.before"),
    ),
    Mutant(
        "Redis remembers what it was given",
        "a result is published twice when its instance is killed between Redis and PostgreSQL",
        Edit(_REDIS, "    if not known then", "    if true then"),
        check=cells("stop job", "redis.publish.after"),
    ),
    Mutant(
        "the outbox's lease is numbered",
        "an instance that was frozen while it published adds old messages again",
        Edit(_REDIS, "if tonumber(ARGV[1]) < latest then", "if false then"),
        check=test("integration.test_store.RedisWritingTest"),
    ),
    Mutant(
        "a dead letter is known by its entry",
        "an entry that names no game comes to the dead letters twice",
        Edit(
            "adapters/postgres/sql/queue.sql",
            "    ON CONFLICT DO NOTHING\n    RETURNING 1)",
            "    ON CONFLICT (stream, entry_ms, entry_seq) DO UPDATE SET received_at = now()\n    RETURNING 1)",
        ),
        check=cells("malformed job", "redis.acknowledge.before"),
    ),
    Mutant(
        "records are compared and swapped",
        "what became true of a game while an operation ran is overwritten by its end",
        Edit(
            "adapters/postgres/sql/changes.sql",
            "r.game_id = ours.game_id AND r.status = seen.status\n"
            "      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id\n"
            "    RETURNING r.game_id),\n",
            "r.game_id = ours.game_id\n    RETURNING r.game_id),\n",
        ),
        check=test("integration.test_store.PostgresRecordsTest"),
    ),
    Mutant(
        "a finding is written on the record that it was decided on",
        "two instances that find one crash publish it twice, and count it twice",
        Edit(
            "adapters/postgres/sql/changes.sql",
            "r.game_id = ours.game_id AND r.status = seen.status\n"
            "      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id\n"
            "    RETURNING r.game_id),\n",
            "r.game_id = ours.game_id\n    RETURNING r.game_id),\n",
        ),
        check=test("integration.test_store.AtOnceTest"),
    ),
    Mutant(
        "an end is compared with the record that it rests on",
        "a job is answered by a record that was being changed when it was read",
        Edit(
            "adapters/postgres/changes.py",
            '"seen": changes.seen and values_of',
            '"seen": changes.new and changes.seen and values_of',
        ),
        check=test("integration.test_store.AtOnceTest"),
    ),
    Mutant(
        "the watch leaves a game alone while an operation is due",
        "an engine that is stopped on purpose is reported as crashed",
        Edit("adapters/postgres/findings.py", '    return bool(row and row["busy"])\n', "    return False\n"),
        check=chaos(1, 1.5),
    ),
    Mutant(
        "the first reconcile",
        "a game that ended while no instance ran is recorded as running until the next pass",
        Edit(
            "workers/reconcile/scan.py",
            "        try:\n            self.step()\n",
            "        try:\n            self._finished_one.set()\n",
        ),
        check=test("integration.test_reconcile"),
    ),
    Mutant(
        "the reconciler",
        "a game whose end was not received as an event is recorded as running for ever",
        Edit(
            "workers/reconcile/scan.py",
            "        suspects = self._suspects()\n",
            "        suspects: dict[str, set[str]] = {}\n",
        ),
        check=cells("container removed unseen", "docker.list.after"),
    ),
    Mutant(
        "an end that is not confirmed is not recorded",
        "a Docker that does not answer is taken for containers that are gone",
        Edit("workers/reconcile/scan.py", "    def _list(self) -> Sequence[ContainerView]:\n", _NOTHING_LISTED),
        Edit(
            "workers/reconcile/game.py",
            "return self.runtime.inspect(id_or_name)\n            except ContainerNotFound:\n",
            "return self.runtime.inspect(id_or_name)\n            except (ContainerNotFound, DependencyError):\n",
        ),
        check=test("integration.test_health.DockerAway"),
    ),
)
