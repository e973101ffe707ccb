"""The listener to the runtime's events: names games to look at, and does nothing slow.

An event is a hint that something happened; what is true is found by looking. Deaths with code 0 are left to the
reconciler by contract, starts are not asked for. After a break the reconciler makes a pass, since events may be
missing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from rtmanager.domain.errors import DependencyError
from rtmanager.domain.health import HealthSource
from rtmanager.workers.attention import Attention, Hint
from rtmanager.workers.watching import ContainerEvent, EventFeed, Happening

#: A container that was asked to end may be about to start again (`docker restart`): so long nobody is told.
RESTART_GRACE_S = 3.0
#: A death by SIGKILL that no event explains may be the kernel's for want of memory: Docker tells that through another
#: channel, which may be a moment behind.
OOM_GRACE_S = 0.2
#: Containers that were asked to end and have not done so; an engine may ignore it for ever.
ASKED_REMEMBERED = 4096
#: A death so much later has nothing to do with it: the engine did not end then.
ASKED_FOR_NS = 5 * 60 * 10**9
#: Signals that do not ask to end: KILL, USR1, USR2, CONT, URG, WINCH.
ASKING_NOTHING = frozenset({"9", "10", "12", "18", "23", "28"})
_SIGKILL = "9"
#: The exit code of a process that SIGKILL ended.
_KILLED = 137


class EventListener:
    """One step listens for a while."""

    def __init__(
        self, feed: EventFeed, attention: Attention, *, missed: Callable[[], None], logger: logging.Logger
    ) -> None:
        self._feed = feed
        self._attention = attention
        self._missed = missed
        self._logger = logger
        self._broken = False
        #: By container, when it was told what, by nanoseconds of the runtime's clock: to end; that it is killed.
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._killed: OrderedDict[str, int] = OrderedDict()

    def step(self) -> bool:
        """Always True. Raises `Unavailable` when the connection is lost."""
        try:
            self._feed.connect()
            if self._broken:
                self._broken = False
                self._missed()
            for event in self._feed.listen():
                self._take(event)
        except DependencyError:
            self._broken = True
            raise
        return True

    def _take(self, event: ContainerEvent) -> None:
        self._logger.debug(
            "container event",
            extra={"game_id": event.game_id, "event": event.what.value, "container_id": event.container_id},
        )
        if event.what is Happening.KILL:
            if event.signal == _SIGKILL:
                _remember(self._killed, event)
            elif event.signal not in ASKING_NOTHING:
                _remember(self._asked, event)
            return
        if event.what is Happening.OOM:
            self._look(event, Hint(HealthSource.DOCKER_EVENT, oom={event.container_id: event.time_ns}))
            return
        asked, killed = _recently(self._asked, event), _recently(self._killed, event)
        if event.what is Happening.DIE and event.exit_code == 0:
            return
        which = frozenset({event.container_id})
        hint = Hint(HealthSource.DOCKER_EVENT, containers=which, asked=which if asked else frozenset())
        unexplained = event.what is Happening.DIE and event.exit_code == _KILLED and not killed
        self._look(event, hint, delay_s=RESTART_GRACE_S if asked else OOM_GRACE_S if unexplained else 0.0)

    def _look(self, event: ContainerEvent, hint: Hint, delay_s: float = 0.0) -> None:
        self._attention.look(event.game_id, hint, delay_s=delay_s)


def _remember(told: OrderedDict[str, int], event: ContainerEvent) -> None:
    told[event.container_id] = event.time_ns
    if len(told) > ASKED_REMEMBERED:
        told.popitem(last=False)


def _recently(told: OrderedDict[str, int], event: ContainerEvent) -> bool:
    """Whether its container was told so not long before; it is forgotten."""
    told_ns = told.pop(event.container_id, None)
    return told_ns is not None and event.time_ns - told_ns <= ASKED_FOR_NS
