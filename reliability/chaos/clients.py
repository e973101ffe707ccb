"""Clients: jobs on the streams like the Lobby's, requests like those of Game Master and Admin Service.

Each job's entry carries a unique mark. The existing entries are read from the streams at the end: an XADD without an
answer may have succeeded. Each request has a unique id, which the operation log contains.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from harness import web
from reliability.chaos.instances import Instance
from reliability.chaos.plan import Step
from reliability.chaos.platform import Platform

#: The clients' timeouts in seconds.
CALL_TIMEOUT_S = 15.0
ADD_TIMEOUT_S = 3.0

#: Rejected at once, wherever the daemon is: a host name would need a DNS request first.
NOWHERE = "127.0.0.1:1/nothing:1.0.0"


class Client:
    """Executes a script on a thread of its own, until its end or `stop`."""

    def __init__(self, platform: Platform, name: str, script: Sequence[Step]) -> None:
        self.platform = platform
        self.name = name
        self._script = script
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Complete the current step and join the thread. Raises its exception, which is a defect of the run."""
        self._ending.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def do(self, step: Step) -> None:
        """Execute one step."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            for step in self._script:
                if self._ending.wait(step.pause_s):
                    return
                self.do(step)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self.failure = error


class JobClient(Client):
    """Adds entries to the input streams, as the Lobby does."""

    def __init__(self, platform: Platform, name: str, script: Sequence[Step]) -> None:
        super().__init__(platform, name, script)
        engine = platform.engine
        start, stop = self._start, self._stop
        self._deeds: dict[str, Callable[[str], None]] = {
            "start": lambda game: start(game, engine.ref),
            "start another version": lambda game: start(game, engine.patched_ref),
            "start twice": lambda game: (start(game, engine.ref), start(game, engine.ref))[0],
            "stop": lambda game: stop(game),
            "stop twice": lambda game: (stop(game), stop(game))[0],
            "malformed image": lambda game: start(game, "no image"),
            "malformed reason": lambda game: stop(game, "for fun"),
            "malformed time": lambda game: start(game, engine.ref, requested_at_ms="soon"),
            "no game": lambda _: self._add("stop", reason="finished"),
            "unknown game": lambda _: stop(f"{platform.taken}-x"),
            "image that is nowhere": lambda _: start(f"{platform.taken}-y", NOWHERE),
            "taken name": lambda _: start(platform.taken, engine.ref),
        }
        self._redis = _impatient(platform)

    def do(self, step: Step) -> None:
        self._deeds[step.what](self.platform.games[step.game])

    def _start(self, game_id: str, image_ref: str, **more: str) -> None:
        self._add("start", game_id=game_id, image_ref=image_ref, **more)

    def _stop(self, game_id: str, reason: str = "finished") -> None:
        self._add("stop", game_id=game_id, reason=reason)

    def _add(self, kind: str, **fields: str) -> None:
        from redis.exceptions import RedisError

        mark = uuid4().hex
        job = {"requested_at_ms": str(round(time.time() * 1000)), "mark": mark, **fields}
        with self.platform.history.deed(self.name, f"{kind} job", mark=mark, game=fields.get("game_id")) as known:
            try:
                known["entry"] = self._redis.xadd(f"runtime:{kind}_jobs", job)
                known["outcome"] = "ok"
            except RedisError as error:
                known["why"] = str(error)


def _impatient(platform: Platform) -> Any:
    """A client without retries: an entry that may exist must not be added again."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    store = platform.store
    return Redis(
        host=store.host,
        port=store.port,
        decode_responses=True,
        socket_timeout=ADD_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Caller(Client):
    """Sends REST requests to any instance, as the Game Master or an administrator."""

    def __init__(self, platform: Platform, name: str, script: Sequence[Step], caller: str) -> None:
        super().__init__(platform, name, script)
        self._caller = caller
        ref, patched = platform.engine.ref, platform.engine.patched_ref
        #: Method, path after the game, body.
        self._calls: dict[str, tuple[str, str, Any]] = {
            "start": ("POST", "/start", {"image_ref": ref}),
            "stop": ("POST", "/stop", {"reason": "admin_request"}),
            "restart": ("POST", "/restart", None),
            "patch": ("POST", "/patch", {"image_ref": patched}),
            "patch back": ("POST", "/patch", {"image_ref": ref}),
            "cleanup": ("DELETE", "/container", None),
            "malformed body": ("POST", "/start", {"image": ref}),
            "unknown game": ("POST", "/restart", None),
            "taken name": ("POST", "/start", {"image_ref": ref}),
            "read": ("GET", "", None),
            "operations": ("GET", "/operations", None),
            "health": ("GET", "/health", None),
            "list": ("GET", "", None),
        }

    def do(self, step: Step) -> None:
        method, path, body = self._calls[step.what]
        special = {"unknown game": f"/{self.platform.taken}-z", "taken name": f"/{self.platform.taken}", "list": ""}
        game = special.get(step.what, f"/{self.platform.games[step.game]}")
        instance = self._instance(step.instance)
        request_id = f"{self.name.replace(' ', '-')}-{uuid4().hex[:20]}"
        about = {"request": request_id, "game": game.lstrip("/"), "instance": instance.number, "method": method}
        with self.platform.history.deed(self.name, step.what, **about) as known:
            url = f"{instance.base_url}/api/v1/internal/runtimes{game}{path}"
            headers = {"X-Galaxy-Caller": self._caller, "X-Request-Id": request_id}
            try:
                status, answer = web.call(method, url, body, headers, timeout_s=CALL_TIMEOUT_S)
            except ConnectionRefusedError:
                known["outcome"] = "nobody there"
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                known["why"] = f"{type(error).__name__}: {error}"
            else:
                known.update(_understood(status, answer))

    def _instance(self, preferred: int) -> Instance:
        """An instance that seems healthy, if any: real callers have more than one address, too."""
        every = self.platform.instances
        around = [*every[preferred:], *every[:preferred]]
        return next((each for each in around if each.seems_well), around[0])


def _understood(status: int, answer: Any) -> dict[str, Any]:
    if status == 200:
        return {"outcome": "ok", "status": status, "container": answer.get("current_container_id")}
    error = answer.get("error", {})
    outcome = "unavailable" if status == 503 else "refused"
    return {"outcome": outcome, "status": status, "code": error.get("code"), "message": error.get("message")}
