"""The environment of a run: durable PostgreSQL and Redis, a Docker daemon, games, managers.

The servers belong to the run, so that they may be killed. With its own daemon the games run there. Without one they run
on the machine's daemon, which is never stopped.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import daemon
from harness.fixtures import dockerd, postgres, redis
from harness.fixtures.container import Container
from harness.fixtures.dockerd import OwnDaemon
from harness.fixtures.postgres import Database
from harness.fixtures.redis import Redis
from harness.fixtures.stateroot import StateRoot
from harness.rtm import EngineImage, allowed_images, stack
from harness.rtm.case import unique_game_id
from harness.runs import identity
from integration.support import images as suite_images
from reliability.chaos.history import History
from reliability.chaos.instances import Instance
from reliability.chaos.plan import Size
from reliability.invariants import Bystander, World, bystander
from reliability.invariants.snapshot import GAME_LABEL, OWNER_LABELS

if TYPE_CHECKING:
    from docker import APIClient

#: Short periods, so that the managers' periodic work runs often.
SETTINGS = {
    "RTMANAGER_GAME_LEASE_TTL_SECONDS": "5",
    "RTMANAGER_RECONCILE_INTERVAL": "3s",
    "RTMANAGER_INSPECT_INTERVAL": "4s",
    "RTMANAGER_PROBE_INTERVAL": "2s",
    "RTMANAGER_PROBE_TIMEOUT": "1s",
    "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS": "6",
    "RTMANAGER_SILENCE_TIMEOUT": "4s",
    "RTMANAGER_SHUTDOWN_TIMEOUT": "3s",
    "RTMANAGER_CRASH_RESTART": "on",
    "RTMANAGER_CRASH_RESTART_FIRST_PAUSE": "1s",
    "RTMANAGER_CRASH_RESTART_BUDGET": "50",
    # The checker expects an intent for each failure in the log.
    "RTMANAGER_INTENTS_PER_MINUTE": "0",
}

#: The number of games without faults.
CANARIES = 2
#: The file that is put into each game's directory before its first start.
MARK = "mark"

#: Timeout of a query to a server of the run, in seconds.
CLIENT_TIMEOUT_S = 20
#: Seconds of tolerance: a stored time may come from a reading of PostgreSQL's clock that took so long.
CLOCK_S = 6.0


@dataclass
class Platform:
    """The shared state of a run's parts."""

    size: Size
    database: Database
    store: Redis
    own_daemon: OwnDaemon | None
    #: The daemon that replaces the managers' one in a fault; only with the run's own daemon.
    other_daemon: OwnDaemon | None
    docker: "APIClient"
    network: str
    root: StateRoot
    engine: EngineImage
    stubborn_image: str
    history: History
    instances: Sequence[Instance] = ()
    games: list[str] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)
    #: A game whose engine ignores a stop, and one whose container name a foreign container has.
    stubborn: str = ""
    taken: str = ""
    markers: dict[Path, str] = field(default_factory=dict)
    bystanders: dict[str, Bystander] = field(default_factory=dict)
    #: Containers that something other than a manager changed.
    touched: set[str] = field(default_factory=set)
    #: Those of them that were changed manually.
    by_hand: set[str] = field(default_factory=set)
    #: Games that ran when the daemon ended: their container, and the time.
    outages: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def world(self) -> World:
        """The view of the invariants."""
        return World(
            self.database, self.store.client(CLIENT_TIMEOUT_S), self.docker, self.network, self.root.folder("games")
        )

    @cached_property
    def elsewhere(self) -> "APIClient | None":
        """A client of the other daemon, for the checker."""
        return self.other_daemon.client(CLIENT_TIMEOUT_S) if self.other_daemon else None

    def name_games(self) -> None:
        """Choose the games; the directory of each that may run has a marker file."""
        self.games = [unique_game_id(f"chaos{number}") for number in range(self.size.games)]
        self.canaries = [unique_game_id(f"canary{number}") for number in range(CANARIES)]
        self.stubborn, self.taken = unique_game_id("stubborn"), unique_game_id("taken")
        for game_id in [*self.games, *self.canaries, self.stubborn]:
            directory = self.root.folder("games") / game_id
            directory.mkdir()
            mark = directory / MARK
            mark.write_text(f"written for {game_id}")
            self.markers[mark] = mark.read_text()

    def of_game(self, game_id: str, **filters: Any) -> list[dict[str, Any]]:
        """The containers of a game without bystanders, as Docker lists them."""
        wanted = {"label": f"{GAME_LABEL}={game_id}", **filters}
        found: list[dict[str, Any]] = self.docker.containers(all=True, filters=wanted)
        return [each for each in found if each["Id"] not in self.bystanders]

    def ours(self) -> list[dict[str, Any]]:
        """Every container of a game of this run without bystanders, as Docker lists them."""
        labels = [f"{name}={value}" for name, value in OWNER_LABELS.items()]
        found: list[dict[str, Any]] = self.docker.containers(all=True, filters={"label": labels})
        of_run = {*self.games, *self.canaries, self.stubborn, self.taken}
        ours = (each for each in found if each["Labels"].get(GAME_LABEL) in of_run)
        return [each for each in ours if each["Id"] not in self.bystanders]

    def touch(self, *container_ids: str) -> None:
        """Record that an end of these containers need not be a manager's action."""
        with self.lock:
            self.touched.update(container_ids)

    def note_outage(self) -> None:
        """Record which games run, since the daemon is about to end with its containers."""
        now = datetime.now(UTC) - timedelta(seconds=CLOCK_S)
        for each in self.ours():
            if each["State"] == "running" and each["Id"] not in self.by_hand:
                self.outages[each["Labels"][GAME_LABEL]] = each["Id"], now

    def add_stranger(self, name: str, labels: dict[str, str]) -> str:
        """Run a foreign container that managers must not touch; return its id."""
        made = self.docker.create_container(
            self.engine.ref,
            entrypoint=["sleep", "infinity"],
            name=name,
            labels={**identity.current().labels(), **labels},
            host_config=self.docker.create_host_config(network_mode=self.network),
        )
        container_id = str(made["Id"])
        # Registered before it runs, so that it never counts as an engine.
        self.bystanders[container_id] = Bystander(container_id, "")
        self.docker.start(container_id)
        self.bystanders[container_id] = bystander(self.docker, container_id)
        return container_id

    def revive_strangers(self) -> None:
        """After the daemon has stopped its containers: start the bystanders again."""
        for container_id in list(self.bystanders):
            self.docker.start(container_id)
            self.bystanders[container_id] = bystander(self.docker, container_id)

    def servers(self) -> dict[str, Container]:
        """The servers that may be killed, by the names that faults use."""
        return {"postgres": self.database.server.container, "redis": self.store.container}


@contextmanager
def running(size: Size, name: str = "chaos") -> Iterator[Platform]:
    """A platform with its managers ready; everything is removed at the end, except the directory of a failed run."""
    with ExitStack() as ends:
        servers = (
            ends.enter_context(postgres.start(settings=postgres.DURABLE)),
            ends.enter_context(redis.start(settings=redis.DURABLE)),
        )
        here = ends.enter_context(stack.running(name, servers, own_daemon=size.own_daemon))
        root, own, stubborn_image = here.state_root, here.own_daemon, suite_images.tiny("ignores-signals")
        history = ends.enter_context(closing(History(root.directory / "history.jsonl")))
        other = None
        if own:
            own.copy_image(stubborn_image)
            other = ends.enter_context(dockerd.start(log=root.logs / "other.log"))
            other.copy_image(here.engine.ref, here.engine.patched_ref)
            other.create_network(here.network.name)
        docker = ends.enter_context(closing(own.client(CLIENT_TIMEOUT_S) if own else daemon.connect(CLIENT_TIMEOUT_S)))
        made = Platform(
            size,
            here.database,
            here.redis,
            own,
            other,
            docker,
            here.network.name,
            root,
            here.engine,
            stubborn_image,
            history,
        )
        made.name_games()
        labels = {"com.galaxy.game_id": made.taken}
        made.add_stranger(f"galaxy-game-{made.taken}", labels)
        settings = {**SETTINGS, "RTMANAGER_IMAGE_ALLOW": allowed_images()}
        made.instances = [
            ends.enter_context(Instance(number, here, settings, size.code)) for number in range(size.managers)
        ]
        yield made
