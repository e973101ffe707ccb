"""Failpoints: named points before and after every effect, at which a test kills, fails, delays or hangs the manager.

    RTMANAGER_FAILPOINTS='docker.start.after=exit' python -m rtmanager serve

An effect is visible outside: a transaction, a command to Redis, a call of Docker, a change of a directory, an answer to
a caller. Each has a name in `EFFECTS` and two points. `<name>.before` is reached when everything is ready for the
effect. `<name>.after` is reached when the effect has taken place and the manager has not acted on it yet. Only the
environment variable arms a point, and only `serve` reads it. An unarmed point costs one comparison with None. The idea
is FreeBSD's fail(9), by way of etcd's gofail.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from rtmanager.domain.errors import InvalidValue, Unavailable

#: Exit code of a process that a failpoint ended; nothing else has it.
EXIT_CODE = 86

_NAMES = {
    "postgres": (
        "migrate presence deployment_id submit live_operation claim claim_name name_holder namesakes heartbeat "
        "note_end noted_end "
        "reclaim_orphans defer park finish hand_back verdict ingest turn_holder relay finding busy alarms records_of "
        "stopped_before forget_old_alarms now queue_restart drop_restarts restarts_since watch_turn record records "
        "records_by_game health log latest purge first_young images "
        "daemon record_daemon accept_daemon"
    ),
    "redis": "ping wait interrupt read give_again acknowledge publish remembered forget trim",
    "docker": (
        "version info network image images remove_image pull create rename start first_start stop remove inspect run "
        "list logs events plugins"
    ),
    "directory": "prepare discard",
    "http": "answer",
}

#: Every effect of the manager.
EFFECTS = frozenset(f"{place}.{name}" for place, names in _NAMES.items() for name in names.split())
#: Every point.
POINTS = frozenset(f"{effect}.{side}" for effect in EFFECTS for side in ("before", "after"))

_FORM = re.compile(r"(?P<point>[a-z_.]+)=(?P<action>[a-z]+)(?:\((?P<ms>[0-9]+)ms\))?(?:#(?P<hit>[1-9][0-9]*))?")
_FILE = "file:"
_EXPECTED = (
    "expected a list such as docker.start.after=exit,redis.publish.before=delay(500ms)#2 (actions: exit, raise, "
    "delay(…ms), hang; #2: the second time; the points stand in rtmanager/failpoints.py), or file:/path to a file "
    "with such a list"
)


class Action(StrEnum):
    """The action at an armed point, once."""

    #: The process ends at once, as by SIGKILL.
    EXIT = "exit"
    #: The dependency seems not to answer, before the effect or after it.
    RAISE = "raise"
    #: The thread waits, then continues.
    DELAY = "delay"
    #: The thread waits for ever.
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Arm:
    """One armed point: `action` at its `hit`-th pass; `delay_ms` for a delay."""

    point: str
    action: Action
    hit: int = 1
    delay_ms: int = 0


class Armed(Protocol):
    """The set of armed points."""

    def reach(self, point: str) -> None:
        """Act if this point is armed for this pass."""
        ...


#: What `serve` armed; None while no point is armed.
_armed: Armed | None = None


def before(effect: str) -> None:
    """Mark that the effect is about to take place."""
    if _armed is not None:
        _armed.reach(f"{effect}.before")


def after(effect: str) -> None:
    """Mark that the effect has taken place."""
    if _armed is not None:
        _armed.reach(f"{effect}.after")


def around(effect: str) -> AbstractContextManager[None]:
    """Mark both: the block is the effect. One that fails has no `after`."""
    return _NOTHING if _armed is None else _both(effect)


_NOTHING = nullcontext()


@contextmanager
def _both(effect: str) -> Iterator[None]:
    before(effect)
    yield
    after(effect)


def arm(setting: str) -> bool:
    """Arm a setting, see `checked`; an empty one disarms. Returns whether any point may now be armed."""
    global _armed  # one process, one environment
    if setting.startswith(_FILE):
        _armed = _FromFile(Path(setting.removeprefix(_FILE)))
    else:
        _armed = _Listed(parse(setting)) if setting else None
    return _armed is not None


def checked(setting: str) -> str:
    """Return the setting if it is valid. Raises `InvalidValue`."""
    if not setting.startswith(_FILE):
        parse(setting)
    elif not Path(setting.removeprefix(_FILE)).is_absolute():
        raise _none(setting)
    return setting


def parse(text: str) -> Sequence[Arm]:
    """Parse a list of points, from the variable or the file. Raises `InvalidValue`."""
    return [_arm(part) for part in re.split(r"[,\s]+", text.strip()) if part]


def _arm(text: str) -> Arm:
    match = _FORM.fullmatch(text)
    if match is None or match["point"] not in POINTS or match["action"] not in set(Action):
        raise _none(text)
    action = Action(match["action"])
    if (match["ms"] is not None) != (action is Action.DELAY):
        raise _none(text)
    return Arm(match["point"], action, int(match["hit"] or 1), int(match["ms"] or 0))


def _none(text: str) -> InvalidValue:
    return InvalidValue(f"{text!r} is no failpoint: {_EXPECTED}")


class _Listed:
    """Points that are armed from the start."""

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._arms = arms
        self._lock = threading.Lock()
        self._times: dict[str, int] = {}

    def reach(self, point: str) -> None:
        """See `Armed`."""
        with self._lock:
            times = self._times[point] = self._times.get(point, 0) + 1
        for each in self._arms:
            if (each.point, each.hit) == (point, times):
                _act(each)


class _FromFile:
    """Points that are armed while a file exists; after a change of the file their counts begin anew.

    While it exists, every point that is reached is noted beside it, in `<file>.reached`, one line each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes = path.with_name(path.name + ".reached")
        self._lock = threading.Lock()
        self._read: tuple[int, int] | None = None
        self._now = _Listed(())

    def reach(self, point: str) -> None:
        """See `Armed`."""
        with self._lock:
            if not self._is_there():
                return
            with self._notes.open("a") as notes:
                notes.write(f"{point}\n")
            now = self._now
        now.reach(point)

    def _is_there(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._read = None
            return False
        if self._read != (found.st_mtime_ns, found.st_ino):
            self._read = (found.st_mtime_ns, found.st_ino)
            self._now = _Listed(parse(self._path.read_text()))
        return True


def _act(arm: Arm) -> None:
    if arm.action is Action.EXIT:
        os._exit(EXIT_CODE)
    if arm.action is Action.RAISE:
        raise _error(arm.point)
    threading.Event().wait(arm.delay_ms / 1000 if arm.action is Action.DELAY else None)


def _error(point: str) -> Exception:
    """Return the error of a dependency that does not answer, or of a system call that fails."""
    place, message = point.partition(".")[0], f"the failpoint {point} raises"
    return OSError(errno.EIO, message) if place in ("directory", "http") else Unavailable(place, message)
