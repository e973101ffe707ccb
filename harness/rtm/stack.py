"""Everything that a Runtime Manager needs, with one game network, for the demo and for `make run`.

with stack.running() as here, manager.start(here.environment, log) as process:
    process.wait_until_ready()
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness import daemon
from harness.fixtures import dockerd, network, services, stateroot
from harness.fixtures.dockerd import OwnDaemon
from harness.fixtures.network import Network
from harness.fixtures.postgres import Database, Postgres
from harness.fixtures.redis import Redis
from harness.fixtures.stateroot import StateRoot
from harness.progress import step
from harness.rtm import manager
from harness.rtm.database import RUNTIME_MANAGER
from harness.rtm.images import EngineImage, engine_image
from harness.rtm.lobby import Lobby
from harness.runs import cleanup

#: The user id of the reference engine, and so the owner of its games' directories.
ENGINE_USER = 10001

#: The number of the capability, which is its bit in a capability set.
_CAP_CHOWN = 0


def ownership() -> dict[str, str]:
    """The settings that let the engine write to its game's directory.

    As root, the manager gives the directory to the engine's user. A user with CAP_CHOWN does so, too; its group may use
    the directory, since tests do. Without CAP_CHOWN the manager stays the owner and opens the directory to all.
    """
    if os.geteuid() == 0:
        owner, group, mode = ENGINE_USER, ENGINE_USER, "0750"
    elif may_change_owners():
        owner, group, mode = ENGINE_USER, os.getegid(), "0770"
    else:
        owner, group, mode = os.geteuid(), os.getegid(), "0777"
    return {
        "RTMANAGER_GAME_STATE_OWNER_UID": str(owner),
        "RTMANAGER_GAME_STATE_OWNER_GID": str(group),
        "RTMANAGER_GAME_STATE_DIR_MODE": mode,
    }


def may_change_owners() -> bool:
    """Whether this process has CAP_CHOWN."""
    [effective] = re.findall(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(int(effective, 16) >> _CAP_CHOWN & 1)


def environment(
    database: Database, redis: Redis, docker_host: str, network: str, root: StateRoot, lobby_url: str
) -> dict[str, str]:
    """The settings with which a manager uses these."""
    return {
        "RTMANAGER_POSTGRES_PRIMARY_DSN": database.dsn,
        "RTMANAGER_REDIS_MASTER_ADDR": redis.address,
        "RTMANAGER_DOCKER_HOST": docker_host,
        "RTMANAGER_DOCKER_NETWORK": network,
        "RTMANAGER_GAME_STATE_ROOT": str(root.folder("games")),
        "RTMANAGER_LOBBY_INTERNAL_BASE_URL": lobby_url,
        **ownership(),
    }


@dataclass(frozen=True)
class Stack:
    """The services, and `environment`, the settings with which a manager uses them."""

    postgres: Postgres
    database: Database
    redis: Redis
    #: The Docker daemon of the games, where it is not the machine's.
    own_daemon: OwnDaemon | None
    network: Network
    state_root: StateRoot
    lobby: Lobby
    engine: EngineImage
    environment: dict[str, str]


@contextmanager
def running(name: str, servers: tuple[Postgres, Redis] | None = None, *, own_daemon: bool = False) -> Iterator[Stack]:
    """Start everything, with `servers` in place of new ones; `name` names the state root.

    Removed at the end, with every game that was started; a state root that was kept stays.
    """
    with ExitStack() as stack:
        engine = engine_image()
        cleanup.leave_nothing()  # also what exists when an interrupt comes during the start
        with step("starting PostgreSQL and Redis") if servers is None else nullcontext():
            postgres, redis = servers or stack.enter_context(services.running())
        database = postgres.create_database(RUNTIME_MANAGER, name=None if servers else "galaxy")
        root = stateroot.create(name)
        stack.callback(root.leave)
        own = stack.enter_context(dockerd.start(log=root.logs / "dockerd.log")) if own_daemon else None
        if own:  # which removes everything with it
            own.copy_image(engine.ref, engine.patched_ref)
            games = own.create_network()
        else:
            games = network.create()
            stack.callback(games.remove)  # with the games' containers, before their directories
        lobby = stack.enter_context(Lobby())
        docker_host = own.url if own else daemon.host()
        settings = {
            manager.ADDRESS_VARIABLE: manager.free_address(),
            **environment(database, redis, docker_host, games.name, root, lobby.base_url),
            "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS": "10",
        }
        yield Stack(postgres, database, redis, own, games, root, lobby, engine, settings)
