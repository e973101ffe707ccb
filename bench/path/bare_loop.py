"""The simplest loop: read a stream, insert a row, add an entry, commit; job by job, on one thread."""

import json
from typing import Any

from bench.path.jobs import Jobs
from harness.fixtures.postgres import Database
from harness.rtm import RUNTIME_MANAGER

_JOBS, _RESULTS, _GROUP = "bench:jobs", "bench:results", "bench"
#: Entries per read, as the manager's.
_AT_ONCE = 200
_MAXLEN = 10_000


class BareLoop:
    """The loop, with its table and its streams."""

    # `Any`: redis-py annotates replies as unions of everything, differently in each release.
    def __init__(self, database: Database, redis: Any) -> None:
        self._database = database
        self._redis = redis
        redis.xgroup_create(_JOBS, _GROUP, id="0", mkstream=True)
        with database.connect(RUNTIME_MANAGER.role) as connection:
            connection.execute("CREATE TABLE bench_jobs (id bigserial PRIMARY KEY, entry_id text UNIQUE, fields json)")

    def do(self, jobs: Jobs) -> None:
        """Add the jobs to the loop's stream, and run the loop until all are done."""
        import psycopg

        jobs.add(_JOBS)
        with psycopg.connect(self._database.dsn) as connection:
            left = jobs.count
            while left:
                [[_, entries]] = self._redis.xreadgroup(_GROUP, "bench", {_JOBS: ">"}, count=_AT_ONCE)
                for entry_id, fields in entries:
                    connection.execute(
                        "INSERT INTO bench_jobs (entry_id, fields) VALUES (%s, %s)", (entry_id, json.dumps(fields))
                    )
                    result = {"game_id": fields["game_id"], "outcome": "success", "error_code": "replay_no_op"}
                    self._redis.xadd(_RESULTS, result, maxlen=_MAXLEN, approximate=True)
                    connection.commit()
                self._redis.xack(_JOBS, _GROUP, *(entry_id for entry_id, _ in entries))
                left -= len(entries)
