"""The protections, in the order in which a job passes them."""

from collections.abc import Sequence

from reliability.protections.protection import Edit, Protection, cells, chaos, test

_QUEUE = "rtmanager/adapters/postgres/sql/queue.sql"
_ENDINGS = "rtmanager/adapters/postgres/endings.py"
_REDIS = "rtmanager/adapters/redis_streams.py"

#: The messages of completions: in the same transaction, and in a separate one.
_TOLD_AT_ONCE = """\
        return {row["id"]: row["ended"] for row in database.write("finish", SQL["end_operations"], values)}
"""
_TOLD_LATER = """\
        ended = {row["id"]: row["ended"] for row in database.write("finish", SQL["end_operations"], values)}
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
    def list_games(self) -> Sequence[ContainerView]:
        try:
            return self._list_games()
        except Exception:
            return []

    def _list_games(self) -> Sequence[ContainerView]:
"""

PROTECTIONS: Sequence[Protection] = (
    Protection(
        "stored before acknowledged",
        without="a job that was read and not stored when its instance was killed is lost",
        edits=[
            Edit(
                "rtmanager/workers/ingest.py",
                "            lock.accept(jobs)\n",
                "            self._streams.acknowledge(ready)\n            lock.accept(jobs)\n",
            )
        ],
        noticed_by=cells("start-up", "postgres.ingest.before"),
    ),
    Protection(
        "unacknowledged entries are read again",
        without="a job that was given out when its instance was killed is lost",
        edits=[
            Edit("rtmanager/adapters/redis_reading.py", "cursor, s.given = reply[1], reply[2]", "cursor = reply[1]"),
        ],
        noticed_by=cells("start-up", "redis.read.after"),
    ),
    Protection(
        "an entry is known by its id",
        without="a job whose acknowledgement was lost is done, and answered, twice",
        edits=[
            Edit(
                _QUEUE,
                "ON CONFLICT (stream, entry_ms, entry_seq) WHERE stream IS NOT NULL DO NOTHING;",
                ";",
            ),
            Edit(
                "rtmanager/adapters/postgres/migrations/0001_initial.sql",
                "CREATE UNIQUE INDEX operations_entry_idx",
                "CREATE INDEX operations_entry_idx",
            ),
        ],
        noticed_by=cells("stop job", "redis.acknowledge.before"),
    ),
    Protection(
        "an entry is known by what it says, too",
        without="a job under an id that a lost stream had given before is taken for a known one, and lost",
        edits=[Edit(_QUEUE, "                    AND o.entry_digest <> j.digest)", "                    AND false)")],
        noticed_by=test("integration.test_redis_failing.IdsGivenAgain"),
    ),
    Protection(
        "a group that is gone is made again",
        without="after Redis was emptied no job is taken over any more",
        edits=[
            Edit(
                _REDIS,
                "        self._make_groups()\n        return self._take",
                "        return self._take",
            )
        ],
        noticed_by=test("integration.test_outage.Silence"),
    ),
    Protection(
        "what the database forgot is read again",
        without="a job that a failover of PostgreSQL has lost gets no result",
        edits=[
            Edit(
                "rtmanager/workers/ingest.py",
                "more=more or self._give_again(lock))\n",
                "more=more)\n",
            )
        ],
        noticed_by=test("integration.test_postgres_failing.FailedOver"),
    ),
    Protection(
        "one running operation of a game, by an index",
        without="two instances work on one game at once",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/migrations/0001_initial.sql",
                "CREATE UNIQUE INDEX operations_one_running_per_game_idx",
                "CREATE INDEX operations_one_running_per_game_idx",
            )
        ],
        noticed_by=test("integration.test_store.OneAtATimeTest"),
    ),
    Protection(
        "orphaned claims are taken over",
        without="what an instance was doing when it was killed is never finished",
        edits=[
            Edit(
                "rtmanager/workers/lease.py",
                "self._queue.reclaim_orphans(",
                "(lambda live, by_presence: ())(",
            )
        ],
        noticed_by=cells("stop job", "docker.stop.after"),
    ),
    Protection(
        "an instance that was killed is told by its session",
        without="what it was doing is not gone on with before its lease is over, a minute later",
        edits=[Edit("rtmanager/workers/lease.py", "by_presence=by_presence)", "by_presence=False)")],
        noticed_by=cells("stop job", "docker.stop.after"),
    ),
    Protection(
        "the generation of a claim is compared",
        without="an instance that was frozen ends an operation that another one has taken over",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/sql/endings.sql",
                "AND o.generation = e.generation AND",
                "AND",
            )
        ],
        noticed_by=test("integration.test_store.PostgresOwnershipTest"),
    ),
    Protection(
        "a claim is confirmed before a container is touched",
        without="an instance that was frozen starts a game that others stopped since, or stops one that others started",
        edits=[
            Edit(
                "rtmanager/operations/tools.py",
                "        if not self.owns(operation):\n",
                "        if operation.generation < 0:\n",
            )
        ],
        noticed_by=test("rtmanager.tests.test_executor"),
    ),
    Protection(
        "what an earlier try left is taken",
        without="a start that was cut short when its container ran can never be finished",
        edits=[
            Edit(
                "rtmanager/operations/launch.py",
                "    if operation.generation == 1 or not is_game_id(operation.game_id):\n",
                "    if operation.generation > 0 or not is_game_id(operation.game_id):\n",
            ),
            Edit(
                "rtmanager/domain/container.py",
                "    return NameConflict.TAKE if found.runs(",
                "    return NameConflict.REFUSE if found.runs(",
            ),
        ],
        noticed_by=cells("start job", "postgres.finish.before"),
    ),
    Protection(
        "what an earlier try left dead is removed",
        without="a start that was cut short before its container ran can never be finished",
        edits=[
            Edit(
                "rtmanager/domain/container.py",
                "    if found.ended:\n        return NameConflict.REMOVE\n",
                "    if found.ended:\n        return NameConflict.REFUSE\n",
            )
        ],
        noticed_by=cells("start job", "docker.create.after"),
    ),
    Protection(
        "what is half done is finished",
        without="a restart that loses Docker half way leaves the game stopped",
        edits=[
            Edit(
                "rtmanager/operations/runner.py",
                "                raise PartiallyApplied(error) from error\n",
                "                raise\n",
            )
        ],
        noticed_by=cells("restart", "docker.rename.before", "raise"),
    ),
    Protection(
        "what a restart left unstarted is removed",
        without="the new container of a restart that was given up stays for ever",
        edits=[
            Edit(
                "rtmanager/workers/reconcile/game.py",
                "        if hint.unstarted:\n",
                "        if False:\n",
            )
        ],
        noticed_by=cells("restart", "docker.create.after", "raise"),
    ),
    Protection(
        "the end is one transaction",
        without="a job whose instance is killed at its end gets no result",
        edits=[
            Edit(_ENDINGS, '"messages": [_message(message) for message in messages],', '"messages": [],'),
            Edit(_ENDINGS, _TOLD_AT_ONCE, _TOLD_LATER),
        ],
        noticed_by=cells("stop job", "postgres.finish.after"),
    ),
    Protection(
        "the outbox",
        without="a message that Redis did not take is lost",
        edits=[
            Edit(
                "rtmanager/workers/outbox.py",
                _TURN,
                f"{_TURN}{_FORGET_FIRST}{_TURN}",
            )
        ],
        noticed_by=cells("stop job", "redis.publish.before"),
    ),
    Protection(
        "Redis remembers what it was given",
        without="a result is told twice when its instance is killed between Redis and PostgreSQL",
        edits=[
            Edit(
                _REDIS,
                "    if not known then",
                "    if true then",
            )
        ],
        noticed_by=cells("stop job", "redis.publish.after"),
    ),
    Protection(
        "the outbox's lease is numbered",
        without="an instance that was frozen while it published adds old messages again",
        edits=[Edit(_REDIS, "if tonumber(ARGV[1]) < latest then", "if false then")],
        noticed_by=test("integration.test_store.RedisWritingTest"),
    ),
    Protection(
        "a dead letter is known by its entry",
        without="an entry that names no game comes to the dead letters twice",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/sql/queue.sql",
                "    ON CONFLICT DO NOTHING\n    RETURNING 1)",
                "    ON CONFLICT (stream, entry_ms, entry_seq) DO UPDATE SET received_at = now()\n    RETURNING 1)",
            )
        ],
        noticed_by=cells("malformed job", "redis.acknowledge.before"),
    ),
    Protection(
        "records are compared and swapped",
        without="what became true of a game while an operation ran is overwritten by its end",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/sql/endings.sql",
                "r.game_id = ours.game_id AND r.status = seen.status\n"
                "      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id\n"
                "    RETURNING r.game_id),\n",
                "r.game_id = ours.game_id\n    RETURNING r.game_id),\n",
            )
        ],
        noticed_by=test("integration.test_store.PostgresRecordsTest"),
    ),
    Protection(
        "a finding is written on the record that it was decided on",
        without="two instances that see one crash tell of it twice, and count it twice",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/sql/records.sql",
                "WHERE game_id = %(game_id)s AND status = %(seen_status)s\n"
                "  AND current_container_id IS NOT DISTINCT FROM %(seen_container_id)s;\n",
                "WHERE game_id = %(game_id)s;\n",
            )
        ],
        noticed_by=test("integration.test_store.AtOnceTest"),
    ),
    Protection(
        "an end is compared with the record that it rests on",
        without="a job is answered by a record that was being changed when it was looked at",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/endings.py",
                "if completion.change else (completion.rests_on, None)\n",
                "if completion.change else (None, None)\n",
            )
        ],
        noticed_by=test("integration.test_store.AtOnceTest"),
    ),
    Protection(
        "the watch leaves a game alone while an operation is due",
        without="an engine that is stopped on purpose is told as crashed",
        edits=[
            Edit(
                "rtmanager/adapters/postgres/findings.py",
                '    return bool(row and row["busy"])\n',
                "    return False\n",
            )
        ],
        noticed_by=chaos(1, 1.5),
    ),
    Protection(
        "the first reconcile",
        without="a game that ended while no instance ran is believed to run until the next pass",
        edits=[
            Edit(
                "rtmanager/workers/reconcile/scan.py",
                "        try:\n            self.step()\n",
                "        try:\n            self._finished_one.set()\n",
            )
        ],
        noticed_by=test("integration.test_reconcile"),
    ),
    Protection(
        "the reconciler",
        without="a game whose end was not heard of is believed to run for ever",
        edits=[
            Edit(
                "rtmanager/workers/reconcile/scan.py",
                "        suspects = self._suspects()\n",
                "        suspects: dict[str, set[str]] = {}\n",
            )
        ],
        noticed_by=cells("container removed unseen", "docker.list.after"),
    ),
    Protection(
        "a half-known end is not believed",
        without="a Docker that does not answer is taken for containers that are gone",
        edits=[
            Edit(
                "rtmanager/adapters/docker/runtime.py",
                "    def list_games(self) -> Sequence[ContainerView]:\n",
                _NOTHING_LISTED,
            ),
            Edit(
                "rtmanager/workers/reconcile/game.py",
                "return self.runtime.inspect(id_or_name)\n            except ContainerNotFound:\n",
                "return self.runtime.inspect(id_or_name)\n            except (ContainerNotFound, DependencyError):\n",
            ),
        ],
        noticed_by=test("integration.test_health.DockerAway"),
    ),
)
