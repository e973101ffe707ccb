"""A year of operations with retention: tables and streams reach a size and keep it; a start does not cost more.

`make year` uses two million operations of ten thousand games; the suite runs a short form. SQL inserts the rows month
by month. After each month the retention worker makes a pass at that month's end, and a vacuum follows, as autovacuum
does. The test compares `pg_total_relation_size` and `XLEN`. The games are the same all year: other tables
keep one row a game for ever, whose size is in docs/operations.md.
"""

import os
import sys
from contextlib import closing
from typing import Any

from harness import start_services
from harness.rtm import unique_game_id
from integration.support.stores import SILENCE_S, migrated
from integration.support.watched import WatchedTestCase
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.purge import PostgresPurge
from rtmanager.adapters.redis_streams import RedisStreams
from rtmanager.config.settings import Config
from rtmanager.domain.jobs import JOB_STREAMS
from rtmanager.logs import make_logger
from rtmanager.workers.purge import Purge, Retentions

#: The short form.
OPERATIONS, GAMES = "20000", "200"
MONTHS, MONTH_S, DAY_S = 12, 30 * 86400, 86400.0
KEEP = Retentions(30 * DAY_S, 30 * DAY_S, 7 * DAY_S, 90 * DAY_S)
#: The maximal sizes in the second half of the year, relative to the first half. The log is full after three months. A
#: vacuum returns only pages at the end of a table, so sizes vary.
GROWTH, SLACK = 1.1, 1 << 19
#: The maximal ratio of a start's cost to that of the first day.
DEARER = 2.0
TABLES = ("operations", "operation_log", "dead_letters", "forgotten_entries")
NAMES = Config("", None, "", "").streams  # type: ignore[arg-type]  # the default names
INPUTS = {NAMES[stream]: read_as.kind for stream, read_as in JOB_STREAMS.items()}

#: Inserts months of rows that end `ago_s` before now. Each operation has an entry on one of the streams, or is a
#: request.
_FILL = """
INSERT INTO operations (game_id, kind, source, source_ref, image_ref, stream, entry_ms, entry_seq, entry_rank, state,
                        generation, accepted_at, finished_at, outcome, entry_digest)
SELECT 'g-' || n %% %(games)s, (%(kinds)s::text[])[rank + 1], 'lobby_stream', 'year:' || n, 'galaxy/game:1.0.0',
       CASE n %% 10 WHEN 9 THEN NULL ELSE (%(inputs)s::text[])[rank + 1] END,
       floor(extract(epoch FROM at) * 1000), n, rank, 'done', 1, at, at + interval '1 second', 'success', 'd'
FROM generate_series(1, %(count)s) n,
     LATERAL (SELECT n %% cardinality(%(inputs)s::text[])) r (rank),
     LATERAL (SELECT now() - make_interval(secs => %(ago_s)s + %(month_s)s * (1 - n / %(count)s::float8))) t (at);
INSERT INTO operation_log (game_id, op_kind, op_source, source_ref, image_ref, outcome, started_at, finished_at)
SELECT game_id, kind, source, source_ref, image_ref, outcome, accepted_at, finished_at
FROM operations WHERE id > %(above)s ORDER BY id;
INSERT INTO dead_letters (stream, entry_ms, entry_seq, received_at, entry_digest)
SELECT stream, entry_ms, entry_seq + 1000000000, accepted_at, 'd'
FROM operations WHERE id > %(above)s AND stream IS NOT NULL AND id %% 100 = 0
"""
_ADD = """
for i = 2, #ARGV do redis.call('XADD', KEYS[1], ARGV[i], 'game_id', 'g', 'reason', ARGV[1], 'requested_at_ms', '0') end
"""


def setUpModule() -> None:
    start_services()


class Year(WatchedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.operations = int(os.environ.get("RTM_YEAR_OPERATIONS") or OPERATIONS)
        self.games = int(os.environ.get("RTM_YEAR_GAMES") or GAMES)
        self.connection: Any = self.services.database.connect()
        self.addCleanup(self.connection.close)
        migrated(self.services.database.dsn).close()
        self.redis: Any = self.services.redis.client()
        self.addCleanup(self.redis.close)
        self.logger = make_logger(level="error", style="text", service="year")

    def test_a_year_of_operations_reaches_a_size_and_a_start_costs_what_it_cost_on_the_first_day(self) -> None:
        self.fill_records()
        first_cost = self.cost_of_a_start()
        sizes = []
        for month in range(MONTHS):
            ago_s = (MONTHS - 1 - month) * MONTH_S
            self.live_a_month(ago_s)
            self.purge(ago_s)
            sizes.append(self.sizes())
            self.report(f"month {month + 1}: {sizes[-1]}")
        last_cost = self.cost_of_a_start()
        self.report(f"blocks of a start: {first_cost} on the first day, {last_cost} on the last")
        for what in sizes[0]:
            months = [size[what] for size in sizes]
            slack = SLACK if what.startswith("bytes") else 0
            self.assertLessEqual(
                max(months[MONTHS // 2 :]), max(months[: MONTHS // 2]) * GROWTH + slack, f"{what} grows: {months}"
            )
        self.assertLess(sizes[-1]["rows of operations"], self.operations / MONTHS * 1.2)
        self.assertLess(sizes[-1]["rows of operation_log"], self.operations / MONTHS * 3.2)
        self.assertLessEqual(last_cost, first_cost * DEARER)

    def fill_records(self) -> None:
        """Insert records of played games: removed games stay on record."""
        self.connection.execute(
            "INSERT INTO runtime_records SELECT 'g-' || n, 'removed', NULL, 'galaxy/game:1.0.0', 'http://g', '/g', "
            "'n', now(), now(), now(), now(), now() FROM generate_series(0, %s) n",
            (self.games - 1,),
        )
        self.connection.execute("VACUUM ANALYZE")

    def live_a_month(self, ago_s: int) -> None:
        count = self.operations // MONTHS
        above = self.one("SELECT coalesce(max(id), 0) AS found FROM operations")
        values: dict[str, Any] = {
            "games": self.games,
            "count": count,
            "ago_s": ago_s,
            "month_s": MONTH_S,
            "above": above,
        }
        values |= {"inputs": list(INPUTS), "kinds": list(INPUTS.values())}
        for statement in _FILL.split(";"):
            self.connection.execute(statement, values)
        for stream in INPUTS:
            self.add_entries(stream, above)

    def add_entries(self, stream: str, above: int) -> None:
        """Add the entries of these operations, taken over and acknowledged."""
        query = (
            "SELECT entry_ms || '-' || entry_seq FROM operations WHERE id > %s AND stream = %s "
            "UNION ALL SELECT entry_ms || '-' || entry_seq FROM dead_letters WHERE stream = %s AND received_at > "
            "(SELECT min(accepted_at) FROM operations WHERE id > %s)"
        )
        rows = self.connection.execute(query, (above, stream, stream, above)).fetchall()
        ids = sorted((str(next(iter(row.values())) if isinstance(row, dict) else row[0]) for row in rows), key=_entry)
        for begin in range(0, len(ids), 2000):
            self.redis.eval(_ADD, 1, stream, "finished", *ids[begin : begin + 2000])
        self.redis.execute_command("XGROUP", "SETID", stream, "rtmanager", ids[-1])

    def purge(self, ago_s: int) -> None:
        """Make a pass at the end of that month, and the vacuum after it."""
        keep = Retentions(
            KEEP.operations_s + ago_s,
            KEEP.dead_letters_s + ago_s,
            KEEP.input_streams_s + ago_s,
            KEEP.operation_log_s + ago_s,
        )
        self.connection.execute("DELETE FROM watch_turns")  # the first day's manager still holds the lease
        redis = self.services.redis
        with (
            closing(migrated(self.services.database.dsn)) as pool,
            closing(
                RedisStreams(redis.host, redis.port, password="", names=NAMES, output_maxlen=1000, silence_s=SILENCE_S)
            ) as streams,
        ):
            purge = Purge(
                streams=streams,
                store=PostgresPurge(pool, NAMES),
                leases=PostgresFindings(pool, 1),
                keep=keep,
                period_s=3600.0,
                deleted=lambda _what, _rows: None,
                logger=self.logger,
                pause_s=0.0,
            )
            while purge.step():
                pass
        for table in TABLES:
            self.connection.execute(f"VACUUM ANALYZE {table}")

    def sizes(self) -> dict[str, int]:
        found = {f"bytes of {table}": self.one(f"SELECT pg_total_relation_size('{table}')") for table in TABLES}
        found |= {f"rows of {table}": self.one(f"SELECT count(*) FROM {table}") for table in TABLES}
        return found | {f"entries of {stream}": self.redis.xlen(stream) for stream in INPUTS}

    def cost_of_a_start(self) -> int:
        """The database blocks that a manager touches for its own start, and for that of a game."""
        before = self.blocks()
        runtime = self.start_runtime(CLEANUP_INTERVAL="1h")
        self.game_id = unique_game_id("year")
        self.start_game()
        self.post("stop", {"reason": "finished"})
        runtime.stop()
        return self.blocks() - before

    def blocks(self) -> int:
        self.connection.execute("SELECT pg_sleep(1.2)")  # a session reports its statistics a second late, or at its end
        return self.one("SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()")

    def one(self, query: str) -> int:
        row = self.connection.execute(query).fetchone()
        return int(next(iter(row.values())) if isinstance(row, dict) else row[0])

    def report(self, line: str) -> None:
        if "RTM_YEAR_OPERATIONS" in os.environ:
            sys.stderr.write(f"{line}\n")


def _entry(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)
