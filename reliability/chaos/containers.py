"""Manual actions on the containers of games."""

from collections.abc import Callable
from typing import Any

from harness.fixtures.container import Container
from reliability.chaos.plan import Fault
from reliability.chaos.platform import Platform
from reliability.invariants.snapshot import GAME_LABEL, OWNER_LABELS

#: Grace period of a manual stop, in seconds.
STOP_GRACE_S = 1
#: The maximal number of foreign containers.
MOST_STRANGERS = 4


class Missed(Exception):
    """The fault has no target."""


def _found(platform: Platform, fault: Fault, **filters: Any) -> Container:
    """The container of the fault's game, marked as touched: its end need not be a manager's action."""
    found = platform.of_game(_game(platform, fault), **filters)
    if not found:
        raise Missed(f"{fault.target} has no such container")
    platform.touch(found[0]["Id"])
    platform.by_hand.add(found[0]["Id"])
    return Container(found[0]["Id"], platform.docker)


def _game(platform: Platform, fault: Fault) -> str:
    return platform.games[int(fault.target.rpartition(" ")[2])]


def kill(platform: Platform, fault: Fault) -> None:
    """docker kill."""
    _found(platform, fault, status="running").kill()


def crash(platform: Platform, fault: Fault) -> None:
    """Crash the engine with SIGSEGV."""
    _found(platform, fault, status="running").kill("SIGSEGV")


def remove(platform: Platform, fault: Fault) -> None:
    """docker rm -f."""
    _found(platform, fault).remove()


def stop(platform: Platform, fault: Fault) -> None:
    """docker stop."""
    _found(platform, fault, status="running").stop(STOP_GRACE_S)


def restart(platform: Platform, fault: Fault) -> None:
    """docker restart: the same container."""
    _found(platform, fault, status="running").restart(STOP_GRACE_S)


def start(platform: Platform, fault: Fault) -> None:
    """docker start of an ended container; its name prevents a second one of the game."""
    found = _found(platform, fault, status="exited")
    platform.docker.start(found.container_id)


def pause(platform: Platform, fault: Fault) -> Callable[[], object]:
    """docker pause, until the returned function is called."""
    found = _found(platform, fault, status="running")
    found.pause()
    return lambda: _if_there(found.unpause)


def leave(platform: Platform, fault: Fault) -> Callable[[], object]:
    """docker network disconnect, until the returned function is called."""
    found = _found(platform, fault, status="running")
    platform.docker.disconnect_container_from_network(found.container_id, platform.network)
    join = platform.docker.connect_container_to_network
    return lambda: _if_there(lambda: join(found.container_id, platform.network))


def _if_there(undo: Callable[[], object]) -> None:
    """Revert a fault; a manager, or another fault, may have ended or removed the container since."""
    from docker.errors import APIError

    try:
        undo()
    except APIError as error:
        if error.status_code not in (403, 404, 409, 500):
            raise


def stranger(platform: Platform, fault: Fault) -> None:
    """Add a foreign container with the labels of a game's, under its own name; managers must not touch it."""
    if len(platform.bystanders) > MOST_STRANGERS:
        raise Missed("there are enough strangers")
    game_id = _game(platform, fault)
    name = f"stranger-{len(platform.bystanders)}-{game_id}"
    platform.add_stranger(name, {**OWNER_LABELS, GAME_LABEL: game_id})
