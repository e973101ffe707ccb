"""Seeded random interference: manual actions, crashes and outages, as in a year of operation.

Each step changes one thing from outside: a game's container through Docker, a game through a job or a REST request, or
the connection to Docker. Temporary changes (a pause, another name, a lost network, an outage) are reverted some steps
later, and all of them at the end.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from harness.fixtures.container import Container
from harness.fixtures.faults import Proxy
from integration.support.watched import WatchedTestCase

#: The longest duration of a pause, a wrong name or an outage, in seconds.
LONGEST_S = 20.0


class Interference:
    """Random steps against the games of a test; `done` counts them by name."""

    def __init__(self, test: WatchedTestCase, games: list[str], docker_proxy: Proxy, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.jobs = 0
        self._test = test
        self._docker = test.docker
        self._games = games
        self._docker_proxy = docker_proxy
        self._random = Random(seed)
        self._undo: list[tuple[float, Callable[[], object]]] = []
        self._away = False
        self._steps: dict[str, tuple[int, Callable[[str], object]]] = {
            "kill": (6, lambda game_id: self._on_live(game_id, lambda c: c.kill())),
            "crash": (6, lambda game_id: self._on_live(game_id, lambda c: c.exec(["sh", "-c", "kill -SEGV -1"]))),
            "rm -f": (3, lambda game_id: self._on_any(game_id, lambda c: c.remove())),
            "restart by hand": (3, lambda game_id: self._on_live(game_id, lambda c: c.restart(1))),
            "stop by hand": (2, lambda game_id: self._on_live(game_id, lambda c: c.stop(1))),
            "start by hand": (3, lambda game_id: self._on_any(game_id, self._start_again)),
            "pause": (3, lambda game_id: self._on_live(game_id, self._pause)),
            "rename": (1, lambda game_id: self._on_live(game_id, self._rename)),
            "leave the network": (1, lambda game_id: self._on_live(game_id, self._leave_network)),
            "out of memory": (2, lambda game_id: self._on_live(game_id, self._exhaust)),
            "run by hand": (3, self._run_by_hand),
            "start job": (20, self._start_job),
            "stop job": (5, self._stop_job),
            "restart call": (3, lambda game_id: self._test.call("POST", "/restart", game_id=game_id)),
            "patch call": (2, self._patch),
            "outage of Docker": (1, self._outage),
        }

    def step(self) -> None:
        """Make one random step, and revert changes that are due."""
        from docker.errors import APIError

        self._take_back(time.monotonic())
        names = list(self._steps)
        [name] = self._random.choices(names, [self._steps[each][0] for each in names])
        self.done[name] += 1
        # The manager, or another step, may have changed the container first.
        with suppress(APIError):
            self._steps[name][1](self._random.choice(self._games))

    def end(self) -> None:
        """Revert all changes."""
        self._take_back(float("inf"))

    def _take_back(self, until: float) -> None:
        from docker.errors import APIError

        due = [undo for moment, undo in self._undo if moment <= until]
        self._undo = [each for each in self._undo if each[0] > until]
        for undo in due:
            with suppress(APIError):
                undo()

    def _later(self, undo: Callable[[], object]) -> None:
        self._undo.append((time.monotonic() + self._random.uniform(0.5, LONGEST_S), undo))

    # --- containers

    def _found(self, game_id: str, **filters: Any) -> list[dict[str, Any]]:
        label = f"com.galaxy.game_id={game_id}"
        found: list[dict[str, Any]] = self._docker.containers(all=True, filters={"label": label, **filters})
        return found

    def _on_live(self, game_id: str, act: Callable[[Container], object]) -> None:
        for found in self._found(game_id, status="running"):
            act(Container(found["Id"], self._docker))

    def _on_any(self, game_id: str, act: Callable[[Container], object]) -> None:
        for found in self._found(game_id):
            act(Container(found["Id"], self._docker))

    def _start_again(self, container: Container) -> None:
        self._docker.start(container.container_id)

    def _pause(self, container: Container) -> None:
        container.pause()
        self._later(container.unpause)

    def _rename(self, container: Container) -> None:
        name = container.name
        self._docker.rename(container.container_id, f"renamed-{container.container_id[:12]}")
        self._later(lambda: self._docker.rename(container.container_id, name))

    def _leave_network(self, container: Container) -> None:
        network = self._test.network.name
        self._docker.disconnect_container_from_network(container.container_id, network)
        self._later(lambda: self._docker.connect_container_to_network(container.container_id, network))

    def _exhaust(self, container: Container) -> None:
        container.exec(["python3", "-c", "bytearray(1 << 30)"])

    def _run_by_hand(self, game_id: str) -> None:
        name = f"galaxy-game-{game_id}"
        labels = {
            "com.galaxy.owner": "rtmanager",
            "com.galaxy.kind": "game-engine",
            "com.galaxy.game_id": game_id,
            "com.galaxy.engine_image_ref": self._test.engine.ref,
        }
        self._test.run_by_hand(name=name, hostname=name, labels=labels)

    # --- jobs, requests, outages

    def _start_job(self, game_id: str) -> None:
        self.jobs += 1
        self._test.add_start_job(game_id=game_id)

    def _stop_job(self, game_id: str) -> None:
        self.jobs += 1
        self._test.add_stop_job(game_id=game_id)

    def _patch(self, game_id: str) -> None:
        engine = self._test.engine
        ref = self._random.choice((engine.ref, engine.patched_ref))
        self._test.call("POST", "/patch", {"image_ref": ref}, game_id=game_id)

    def _outage(self, _game_id: str) -> None:
        if not self._away:
            self._away = True
            self._docker_proxy.refuse()
            self._later(self._back)

    def _back(self) -> None:
        self._away = False
        self._docker_proxy.pass_on()
