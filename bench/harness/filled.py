"""Services as a test leaves them: a migrated database with the rows of twenty games, and the streams they used."""

import logging
from dataclasses import dataclass

from bench.errors import BenchError
from harness.fixtures import services
from harness.fixtures.services import Services
from harness.rtm import RUNTIME_MANAGER
from harness.rtm.database import MIGRATIONS

GAMES = 20

#: Log rows and operations of each game: a start, a stop, and a second start.
OPERATIONS_EACH = 3

STREAMS = ("start_jobs", "stop_jobs", "job_results", "health_events")

_ROWS = f"""
    INSERT INTO runtime_records (game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path,
                                 docker_network, started_at, last_op_at, created_at)
    SELECT 'game-' || n, 'running', repeat(md5(n::text), 2), 'galaxy/game:1.0.0', 'http://galaxy-game-' || n || ':8080',
           '/srv/games/game-' || n, 'galaxy-net', now(), now(), now()
    FROM generate_series(1, {GAMES}) n;
    INSERT INTO health_snapshots (game_id, container_id, status, source, observed_at)
    SELECT game_id, current_container_id, 'healthy', 'inspect', now() FROM runtime_records;
    INSERT INTO operation_log (game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, started_at,
                               finished_at)
    SELECT game_id, 'start', 'lobby_stream', 'runtime:start_jobs:1700000000000-' || n, current_image_ref,
           current_container_id, 'success', now(), now()
    FROM runtime_records, generate_series(1, {OPERATIONS_EACH}) n;
    INSERT INTO operations (game_id, kind, source, source_ref, image_ref, state, outcome, finished_at)
    SELECT game_id, op_kind, op_source, source_ref, image_ref, 'done', outcome, finished_at FROM operation_log;
    INSERT INTO outbox (stream, fields) SELECT 'job_results', json_build_object('game_id', game_id) FROM operations;
"""

#: Counts the inserted rows: a figure without them would be meaningless.
_COUNT = """
    SELECT (SELECT count(*) FROM runtime_records) + (SELECT count(*) FROM operation_log) + (SELECT count(*) FROM outbox)
"""


@dataclass(frozen=True)
class Filled:
    """The shared services of this process, to be filled and emptied."""

    services: Services

    @classmethod
    def start(cls) -> "Filled":
        """Start the services and create the manager's tables."""
        from rtmanager.adapters.postgres.database import Database
        from rtmanager.adapters.postgres.migrate import migrate

        shared = services.shared(RUNTIME_MANAGER)
        migrate(Database(shared.database.dsn, max_connections=2, silence_s=8), logging.getLogger("bench"))
        return cls(shared)

    def fill(self) -> None:
        """Insert the rows and entries of a test; raises BenchError when earlier rows are still there."""
        with self.services.database.connect() as connection:
            connection.execute(_ROWS.encode())
            found = connection.execute(_COUNT.encode()).fetchone()
        expected = GAMES + 2 * GAMES * OPERATIONS_EACH
        if found != (expected,):
            raise BenchError(f"{found} rows are there, but {expected} were filled in: the side before left some")
        with self.services.redis.client() as client, client.pipeline(transaction=False) as pipe:
            for stream in STREAMS:
                for number in range(GAMES * OPERATIONS_EACH):
                    pipe.xadd(f"runtime:{stream}", {"game_id": f"game-{number}", "requested_at_ms": "1700000000000"})
            pipe.execute()

    def truncate(self) -> None:
        """Empty both services with TRUNCATE and FLUSHALL, as a hand-written fixture does."""
        from psycopg import sql

        with self.services.database.connect() as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = current_schema AND tablename <> %s", [MIGRATIONS]
            )
            tables = sql.SQL(", ").join(sql.Identifier(name) for (name,) in found.fetchall())
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
        with self.services.redis.client() as client:
            client.flushall()
