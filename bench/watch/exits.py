"""The delay until the exit of a game is published, against a bare listener to Docker events.

All sides measure the same kill, from the moment at which the container ended. The listener is a floor: no program
that relies on Docker events learns of the exit earlier. So is a listener that also inspects the container: Docker
answers an inspect only when it has taken the container off its network. The manager also fetches the end of the log,
and writes record, snapshot and message to PostgreSQL; the relay then publishes the message to Redis.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from bench.comparison import WHOLE, Contest, Sample, Side
from bench.errors import BenchError
from harness import daemon, web
from harness.fixtures.container import Container
from harness.rtm import manager, stack
from rtmanager.adapters.docker import decode
from rtmanager.domain.container import LABEL_GAME_ID

if TYPE_CHECKING:
    from docker import APIClient

KILLS = 8

#: Seconds to wait for the event and for the entry.
PUBLISHED_S = 10.0

STREAM = "runtime:health_events"

OURS = "the entry on health_events"
LISTENER = "a bare `docker events`"
INSPECT = "the same, and one inspect"


def contests() -> Iterator[Contest]:
    """One comparison, on real services and with a manager in a process of its own."""
    game_id = f"bench-{secrets.token_hex(5)}"
    with (
        stack.running("bench") as here,
        manager.start(here.environment, here.state_root.logs / "manager.log") as process,
        closing(Listener(game_id)) as listener,
        here.redis.client() as redis,
    ):
        process.wait_until_ready()
        game = _Game(f"{process.base_url}/api/v1/internal/runtimes/{game_id}", here.engine.ref, redis, listener)
        kills = Shared(game.kill)
        yield Contest(
            "an exit is told",
            Side(OURS, lambda: kills.seen_by(OURS)),
            [Side(LISTENER, lambda: kills.seen_by(LISTENER)), Side(INSPECT, lambda: kills.seen_by(INSPECT))],
            rounds=KILLS,
        )


class Shared:
    """Shares one event a round between the sides that measure it."""

    def __init__(self, happen: Callable[[], Mapping[str, float]]) -> None:
        self._happen = happen
        self._seen: dict[str, float] = {}

    def seen_by(self, side: str) -> Sample:
        """Seconds until that side saw the event; the first side of a round triggers it."""
        if side not in self._seen:
            self._seen = dict(self._happen())
        return {WHOLE: self._seen.pop(side)}


@dataclass(frozen=True)
class Death:
    """The times of a container's die event and of the inspect after it, by the system's clock."""

    container_id: str
    received_at: float
    inspected_at: float


class Listener:
    """Listens for a game's die events on a thread, inspects the container, and records the times."""

    def __init__(self, game_id: str) -> None:
        self._client, self._inspecting = daemon.connect(), daemon.connect()
        filters = {"type": "container", "event": "die", "label": f"{LABEL_GAME_ID}={game_id}"}
        self._stream = self._client.events(decode=True, filters=filters)
        self._deaths: SimpleQueue[Death] = SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name="bench-listener", daemon=True)
        self._thread.start()

    def death_of(self, container_id: str) -> Death:
        """The recorded death of that container; raises BenchError when there is none within `TOLD_S`."""
        try:
            while True:
                death = self._deaths.get(timeout=PUBLISHED_S)
                if death.container_id == container_id:
                    return death
        except Empty:
            raise BenchError(f"Docker has told nobody that container {container_id} died") from None

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()
        self._thread.join()
        self._client.close()
        self._inspecting.close()

    def _listen(self) -> None:
        for event in self._stream:
            received_at, container_id = time.time(), event["Actor"]["ID"]
            self._inspecting.inspect_container(container_id)
            self._deaths.put(Death(container_id, received_at, time.time()))


@dataclass
class _Game:
    """The game that is killed in every round."""

    url: str
    image_ref: str
    #: `Any`: redis-py annotates replies as unions of everything, differently in each release.
    redis: Any
    listener: Listener
    client: "APIClient" = field(default_factory=daemon.client)
    _last_entry: str = "0-0"
    _started: bool = False

    def kill(self) -> Mapping[str, float]:
        """Start the game and kill it; returns the seconds from its end until each side saw it."""
        container = self._running()
        container.kill()
        published_at = self._published_at(container.container_id)
        death = self.listener.death_of(container.container_id)
        ended = decode.inspected(container.inspect()).finished_at
        if ended is None:
            raise BenchError(f"container {container.container_id} was killed and has not ended")
        times = {OURS: published_at, LISTENER: death.received_at, INSPECT: death.inspected_at}
        return {side: at - ended.timestamp() for side, at in times.items()}

    def _running(self) -> Container:
        """Its container, once the engine is up: a starting engine uses processor time of the measured sides."""
        operation, body = ("restart", None) if self._started else ("start", {"image_ref": self.image_ref})
        status, answer = web.call("POST", f"{self.url}/{operation}", body, {"X-Galaxy-Caller": "gm"})
        if status != 200:
            raise BenchError(f"the {operation} of the game that is to be killed is answered {status}: {answer}")
        self._started = True
        container = Container(answer["current_container_id"], self.client)
        container.wait_until("the engine", lambda: "listens" in container.logs())
        return container

    def _published_at(self, container_id: str) -> float:
        """When the entry was added, by Redis's clock, which is this machine's."""
        until = time.monotonic() + PUBLISHED_S
        while (left := until - time.monotonic()) > 0:
            for _, entries in self.redis.xread({STREAM: self._last_entry}, block=max(1, round(left * 1000))):
                for self._last_entry, event in entries:
                    if (event["event_type"], event["container_id"]) == ("container_exited", container_id):
                        return int(self._last_entry.partition("-")[0]) / 1000
        raise BenchError(f"the exit of container {container_id} was not published within {PUBLISHED_S:g} s")
