"""What people do to the containers of games, by hand."""

from collections.abc import Callable
from typing import Any

from harness.fixtures.container import Container
from reliability.chaos.plan import Fault
from reliability.chaos.platform import Platform
from reliability.invariants.snapshot import GAME_LABEL, OWNER_LABELS

#: Seconds that an engine has to end, by hand.
GRACE_S = 1
#: So many strangers may stand around.
MOST_STRANGERS = 4


class Missed(Exception):
    """There was nothing to do it to."""


def _found(platform: Platform, fault: Fault, **filters: Any) -> Container:
    """The container of the fault's game, which from now on may end without a manager's doing."""
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
    """The engine crashes."""
    _found(platform, fault, status="running").kill("SIGSEGV")


def remove(platform: Platform, fault: Fault) -> None:
    """docker rm -f."""
    _found(platform, fault).remove()


def stop(platform: Platform, fault: Fault) -> None:
    """docker stop."""
    _found(platform, fault, status="running").stop(GRACE_S)


def restart(platform: Platform, fault: Fault) -> None:
    """docker restart: the same container."""
    _found(platform, fault, status="running").restart(GRACE_S)


def start(platform: Platform, fault: Fault) -> None:
    """docker start of a container that has ended; its name keeps a second one of the game from being there."""
    found = _found(platform, fault, status="exited")
    platform.docker.start(found.container_id)


def pause(platform: Platform, fault: Fault) -> Callable[[], object]:
    """docker pause, for a while."""
    found = _found(platform, fault, status="running")
    found.pause()
    return lambda: _if_there(found.unpause)


def leave(platform: Platform, fault: Fault) -> Callable[[], object]:
    """docker network disconnect, for a while."""
    found = _found(platform, fault, status="running")
    platform.docker.disconnect_container_from_network(found.container_id, platform.network)
    join = platform.docker.connect_container_to_network
    return lambda: _if_there(lambda: join(found.container_id, platform.network))


def _if_there(undo: Callable[[], object]) -> None:
    """A manager, or another fault, may have ended or removed it since."""
    from docker.errors import APIError

    try:
        undo()
    except APIError as error:
        if error.status_code not in (403, 404, 409, 500):
            raise


def stranger(platform: Platform, fault: Fault) -> None:
    """A container that carries the labels of a game's, under a name of its own: nobody's to touch."""
    if len(platform.bystanders) > MOST_STRANGERS:
        raise Missed("there are enough strangers")
    game_id = _game(platform, fault)
    name = f"stranger-{len(platform.bystanders)}-{game_id}"
    platform.add_stranger(name, {**OWNER_LABELS, GAME_LABEL: game_id})
