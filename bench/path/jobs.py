"""The jobs, and the check that all of them are done."""

from typing import Any

from bench.errors import BenchError
from harness.errors import WaitFailed
from harness.fixtures.postgres import Database
from harness.waiting import wait_until

STREAM, RESULTS = "runtime:stop_jobs", "runtime:job_results"

#: Seconds to wait for all results, and between two checks.
DONE_S = 120.0
POLL_INTERVAL_S = 0.005
#: Entries of one pipeline.
_AT_ONCE = 1000

_REMOVED = """
    INSERT INTO rtmanager.runtime_records
        (game_id, status, engine_endpoint, state_path, docker_network, removed_at, last_op_at, created_at)
    SELECT 'game-' || n, 'removed', '', '', '', now(), now(), now() FROM generate_series(1, %s) n"""


class Jobs:
    """`count` stop jobs of as many games."""

    # `Any`: redis-py annotates replies as unions of everything, differently in each release.
    def __init__(self, database: Database, redis: Any, count: int) -> None:
        self._database = database
        self._redis = redis
        self.count = count

    def have_removed_games(self) -> None:
        """Write a removed record for each game."""
        with self._database.connect() as connection:
            connection.execute(_REMOVED, [self.count])

    def add(self, stream: str) -> None:
        """Add the jobs to `stream`, one for each game."""
        for first in range(1, self.count + 1, _AT_ONCE):
            with self._redis.pipeline(transaction=False) as pipe:
                for number in range(first, min(first + _AT_ONCE, self.count + 1)):
                    fields = {"game_id": f"game-{number}", "reason": "cancelled", "requested_at_ms": "1700000000000"}
                    pipe.xadd(stream, fields)
                pipe.execute()

    def do(self) -> None:
        """Add the jobs for the manager, and wait for the results; raises BenchError unless each job has one."""
        results, logged = self._results(), self._logged()
        self.add(STREAM)
        due = results + self.count
        try:
            wait_until("results", lambda: self._results() >= due, timeout_s=DONE_S, interval_s=POLL_INTERVAL_S)
        except WaitFailed as failure:
            raise BenchError(f"{self._results() - results} of {self.count} jobs are done: {failure}") from None
        if self._results() != due or self._logged() != logged + self.count:
            raise BenchError(
                f"{self.count} jobs have {self._results() - results} results and {self._logged() - logged} log rows"
            )

    def _results(self) -> int:
        """The number of entries ever added: the stream itself is trimmed."""
        return int(self._redis.xinfo_stream(RESULTS)["entries-added"]) if self._redis.exists(RESULTS) else 0

    def _logged(self) -> int:
        with self._database.connect() as connection:
            [count] = connection.execute(
                "SELECT count(*) FROM rtmanager.operation_log WHERE error_code = 'replay_no_op'"
            ).fetchone() or (0,)
            return int(count)
