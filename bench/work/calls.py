"""Restart, patch, stop and cleanup by REST, against the Docker calls that each needs.

The engine is up before each call: it then exits at once on a stop, and its start uses no processor time of the
measured side.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.catalogue import Bench
from bench.comparison import Contest, Goal, Sample, Side
from bench.docker import prepared_docker
from bench.errors import BenchError
from bench.work import bare, ours
from bench.work.bare import Bare
from bench.work.ours import Ours
from bench.work.start import check_same
from rtmanager.config.settings import Config

if TYPE_CHECKING:
    from docker import APIClient

ROUNDS = 10

#: In the order in which one game gets them.
CALLS = ("restart", "patch", "stop", "cleanup")


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    return Bench(
        contests=_contests,
        notes={
            "Docker": prepared_docker(),
            "a call": "from the request to its answer, on one connection that is kept",
            "restart and patch": "the SDK's side: stop, remove, create, start",
            "PostgreSQL and Redis": "containers on this machine, which sync nothing to the disk",
        },
    )


def _contests() -> Iterator[Contest]:
    with ours.running() as manager, Bare(Config.from_environment(manager.here.environment)) as sdk:
        check_same(manager, sdk)
        yield Contest(
            "a call",
            Side("REST", lambda: _round(_Managed(manager), manager.here.network.client)),
            [Side("bare SDK", lambda: _round(_Bare(manager, sdk), sdk.client))],
            manager.clear,
            ROUNDS,
            {call: Goal(median=1.10) for call in CALLS},
        )


class _Game(Protocol):
    """One game; each call returns the id of the container that it leaves."""

    def start(self) -> str: ...
    def restart(self) -> str: ...
    def patch(self) -> str: ...
    def stop(self) -> str: ...
    def cleanup(self) -> str: ...


@dataclass
class _Managed:
    """A game of the manager."""

    manager: Ours

    def __post_init__(self) -> None:
        (self.game_id,) = ours.new_games(1)

    def start(self) -> str:
        return self.manager.start([self.game_id])[self.game_id]

    def restart(self) -> str:
        return str(self._call("POST", "restart", {})["current_container_id"])

    def patch(self) -> str:
        body = {"image_ref": self.manager.here.engine.patched_ref}
        return str(self._call("POST", "patch", body)["current_container_id"])

    def stop(self) -> str:
        return str(self._call("POST", "stop", {"reason": "finished"})["current_container_id"])

    def cleanup(self) -> str:
        return str(self._call("DELETE", "container")["current_container_id"] or "")

    def _call(self, method: str, operation: str, body: object = None) -> Mapping[str, Any]:
        return self.manager.call(method, self.game_id, operation, body)


@dataclass
class _Bare:
    """A game that is only a container."""

    manager: Ours
    sdk: Bare

    def __post_init__(self) -> None:
        (game_id,), engine = ours.new_games(1), self.manager.here.engine
        self.container_id = ""
        self.wanted, self.patched = (self.sdk.wanted(game_id, image) for image in (engine.ref, engine.patched_ref))

    def start(self) -> str:
        return self._launch(self.wanted)

    def restart(self) -> str:
        return self._launch_anew(self.wanted)

    def patch(self) -> str:
        return self._launch_anew(self.patched)

    def stop(self) -> str:
        self.sdk.client.stop(self.container_id, timeout=self.sdk.config.stop_grace_s)
        return self.container_id

    def cleanup(self) -> str:
        self.sdk.client.remove_container(self.container_id, v=True)
        return ""

    def _launch_anew(self, wanted: bare.Wanted) -> str:
        self.stop()
        self.cleanup()
        return self._launch(wanted)

    def _launch(self, wanted: bare.Wanted) -> str:
        self.container_id = bare.launch(self.sdk.client, wanted)
        return self.container_id


def _round(game: _Game, client: "APIClient") -> Sample:
    """Make every call once, on one game from its start to its cleanup."""
    ours.wait_for_engine(client, game.start())
    sample = {}
    for call in CALLS:
        sample[call], container_id = _timed(getattr(game, call))
        if call in ("restart", "patch"):
            ours.wait_for_engine(client, container_id)
        else:
            _check_ended(client, call, container_id)
    return sample


def _timed(call: Callable[[], str]) -> tuple[float, str]:
    began = time.perf_counter()
    container_id = call()
    return time.perf_counter() - began, container_id


def _check_ended(client: "APIClient", call: str, container_id: str) -> None:
    """Raises BenchError unless a stop leaves a container with exit code 0, and a cleanup none."""
    if call == "cleanup":
        if container_id:
            raise BenchError(f"a cleanup left container {container_id}")
        return
    state = client.inspect_container(container_id)["State"]
    if (state["Status"], state["ExitCode"]) != ("exited", 0):
        raise BenchError(f"a stop left container {container_id} {state['Status']}, exit code {state['ExitCode']}")
