"""I8: while the engine of one game ignores a stop, the jobs of other games are done in time."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import web
from harness.errors import WaitFailed
from harness.waiting import wait_until
from reliability.chaos.platform import Platform

#: Seconds in which a job of an untouched game is answered, plus twice the slowest one just before without a stuck game:
#: the load of the machine is no fault of the manager.
BOUND_S = 5.0
#: Timeout of the jobs before, in seconds.
CALM_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 60.0


class IsolationCheck:
    """Jobs of the canary games beside a stuck game; `waits_s` are their durations."""

    def __init__(self, platform: Platform) -> None:
        self.waits_s: list[float] = []
        self._platform = platform
        #: One client for all jobs, connected before a wait begins.
        self._redis: Any = platform.store.client(CALM_TIMEOUT_S)
        self._bound_s = BOUND_S

    def prepare(self) -> None:
        """Start the stubborn game, whatever its state."""
        self._call("start", {"image_ref": self._platform.stubborn_image})

    def sing(self) -> list[str]:
        """Restart the stubborn game, and meanwhile start and stop each canary; return those that took too long."""
        self._bound_s, self.waits_s, before = CALM_TIMEOUT_S, [], self.waits_s
        late = self._all_jobs()
        self._bound_s, self.waits_s = BOUND_S + 2 * max(self.waits_s, default=0.0), before
        return late + self._beside_a_stuck_game()

    def _all_jobs(self) -> list[str]:
        return [text for game_id in self._platform.canaries for text in self._jobs(game_id)]

    def _beside_a_stuck_game(self) -> list[str]:
        with ThreadPoolExecutor(1) as threads:
            stuck = threads.submit(self._call, "restart", None)
            time.sleep(0.3)  # the stop has begun; if not, the test is only easier
            late = self._all_jobs()
            was_stuck = not stuck.done()
            status, answer = stuck.result()
        self._platform.history.note("canary", "beside a stuck game", stuck=was_stuck, status=status, late=late)
        if status != 200:
            late.append(f"I8: the stubborn game was not restarted: {status} {answer}")
        return late

    def _jobs(self, game_id: str) -> list[str]:
        image_ref = self._platform.engine.ref
        return [
            *self._job("start", game_id=game_id, image_ref=image_ref),
            *self._job("stop", game_id=game_id, reason="finished"),
        ]

    def _job(self, kind: str, **fields: str) -> list[str]:
        game_id, began = fields["game_id"], time.monotonic()
        before = self._results(game_id)
        self._redis.xadd(f"runtime:{kind}_jobs", {"requested_at_ms": str(round(time.time() * 1000)), **fields})
        try:
            wait_until("a result", lambda: self._results(game_id) > before, timeout_s=self._bound_s)
        except WaitFailed:
            return [f"I8: the {kind} of {game_id} took more than {self._bound_s:.1f} s"]
        self.waits_s.append(time.monotonic() - began)
        return []

    def _results(self, game_id: str) -> int:
        return sum(fields["game_id"] == game_id for _, fields in self._redis.xrange("runtime:job_results"))

    def _call(self, what: str, body: object) -> tuple[int, object]:
        instance = self._platform.instances[0]
        url = f"{instance.base_url}/api/v1/internal/runtimes/{self._platform.stubborn}/{what}"
        return web.call("POST", url, body, timeout_s=CALL_TIMEOUT_S)
