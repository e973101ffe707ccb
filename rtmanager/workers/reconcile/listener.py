"""Listens to the runtime's events and puts the games that they concern into the reconcile queue; does nothing slow.

An event is a hint; the state is found by inspecting. That includes the exit code, since a label of the container may
have the same name as the event's attribute. The listener does not subscribe to start events. After a break, and after
unreadable events, it requests a pass of the drift scan.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from rtmanager.domain.container import is_another
from rtmanager.domain.errors import DependencyError
from rtmanager.domain.game import is_game_id
from rtmanager.domain.health import HealthSource
from rtmanager.domain.outage import RuntimeRun, sender_of_signal
from rtmanager.ports.watching import OOM_PAUSE_S, ContainerEvent, ContainerEventKind, EventFeed, UnreadableEvent
from rtmanager.workers.reconcile.queue import ReconcileHint, ReconcileQueue
from rtmanager.workers.reconcile.signals import SignalMemory

#: Seconds before the end of a container that got a stop signal is reconciled: `docker restart` may start it again.
RESTART_GRACE_S = 3.0
#: Containers whose latest events are remembered; an engine may ignore a stop signal for ever.
SIGNALS_REMEMBERED = 4096
#: Signals that are no stop request: KILL, USR1, USR2, CONT, URG, WINCH.
ASKING_NOTHING = frozenset({"9", "10", "12", "18", "23", "28"})
_SIGKILL = "9"
#: Exits in a row without any event after which events count as lost; and seconds that an event may take.
UNHEARD_EXITS, UNHEARD_AFTER_S = 3, 5.0
#: Seconds between two passes that unreadable events request.
UNREADABLE_PAUSE_S = 15.0


class EventListener:
    """One step listens until the feed ends or the connection breaks."""

    def __init__(
        self,
        feed: EventFeed,
        reconcile_queue: ReconcileQueue,
        *,
        missed: Callable[[], None],
        logger: logging.Logger,
        present_run: Callable[[], RuntimeRun] = RuntimeRun,
        signals: SignalMemory | None = None,
        deployment: Callable[[], str] = str,
    ) -> None:
        """Events of containers of another `deployment` are ignored.

        `present_run` raises `DependencyError` while the runtime accepts no calls, and for no other reason.
        """
        self._present_run = present_run
        self._deployment = deployment
        self._signals = signals or SignalMemory()
        #: Whether it accepted no call since the feed was connected; it gets no further one until the next connect.
        self._goes_down = False
        self._feed = feed
        self._reconcile_queue = reconcile_queue
        self._missed = missed
        self._logger = logger
        #: When the feed broke; None while it is connected, and before it first was.
        self._broken_at: float | None = None
        #: Since when the feed is connected without a break; None while it is not.
        self._connected_at: float | None = None
        #: Containers with a recent event; and exits without an event since the last event.
        self._events_of: OrderedDict[str, int] = OrderedDict()
        self._unheard = 0
        #: By container, until when its latest signal explains an end, in nanoseconds of the runtime's clock: a stop
        #: request, KILL, any.
        self._stop_signalled: OrderedDict[str, int] = OrderedDict()
        self._killed: OrderedDict[str, int] = OrderedDict()
        self._signalled: OrderedDict[str, int] = OrderedDict()
        #: By container, when counting began and how often its memory ran out since then.
        self._ooms: OrderedDict[str, tuple[float, int]] = OrderedDict()
        #: Unreadable events that no pass has followed yet; and when the last such pass was requested.
        self._unreadable = 0
        self._passed_at: float | None = None

    def step(self) -> bool:
        """Return True. Raises `Unavailable` when the connection is lost."""
        try:
            self._feed.connect()
            self._goes_down = False
            if self._connected_at is None:
                self._connected_at = monotonic()
            if self._broken_at is not None:
                self._signals.connected_again(self._broken_at)
                self._broken_at = None
                self._missed()
            for event in self._feed.listen():
                self._unheard = 0
                if isinstance(event, UnreadableEvent):
                    self._note_unreadable(event)
                else:
                    self._take(event)
                self._pass_for_unreadable()
            self._pass_for_unreadable()
        except DependencyError:
            self.broken()
            raise
        return True

    def broken(self) -> None:
        """Note that the connection is lost; events may be missing until a pass after the next connect."""
        self._connected_at = None
        if self._broken_at is None:
            self._broken_at = monotonic()
            self._signals.feed_broke()

    def exit_found(self, container_id: str, ended_ago_s: float) -> None:
        """Record that a pass found an exit; count it when its event should have arrived and did not."""
        connected_at = self._connected_at
        if connected_at is None or not UNHEARD_AFTER_S < ended_ago_s < monotonic() - connected_at:
            return
        if container_id in self._events_of:
            return
        self._unheard += 1
        if self._unheard == UNHEARD_EXITS:
            self._logger.warning("no events arrive", extra={"why": self.problem()})

    def problem(self) -> str:
        """What is wrong with a connected event feed, with the remedy; empty when nothing is."""
        if self._unheard < UNHEARD_EXITS:
            return ""
        return (
            f"no events arrive, {self._unheard} exits were found by passes alone: a proxy holds `GET /events` back, "
            "let it pass each piece at once"
        )

    def _note_unreadable(self, event: UnreadableEvent) -> None:
        if not self._unreadable:
            self._logger.warning("container event cannot be read, a pass follows", extra={"why": event.why})
        self._unreadable += 1

    def _pass_for_unreadable(self) -> None:
        """Request a pass after unreadable events: the first at once, the next after `UNREADABLE_PAUSE_S`."""
        now = monotonic()
        if self._unreadable and (self._passed_at is None or now - self._passed_at >= UNREADABLE_PAUSE_S):
            self._unreadable, self._passed_at = 0, now
            self._missed()

    def _take(self, event: ContainerEvent) -> None:
        if not is_game_id(event.game_id):
            return  # no record can have this id; a pass reports its container
        if is_another(event.deployment, self._deployment()):
            return  # else each deployment of a host would inspect the others' containers at each of their events
        self._logger.debug(
            "container event",
            extra={"game_id": event.game_id, "event": event.what.value, "container_id": event.container_id},
        )
        _remember(self._events_of, event)
        if event.what is ContainerEventKind.KILL:
            _remember(self._signalled, event)
            self._note_sender(event)
            if event.signal == _SIGKILL:
                _remember(self._killed, event)
            elif event.signal not in ASKING_NOTHING:
                _remember(self._stop_signalled, event)
            return
        if event.what is ContainerEventKind.OOM:
            self._count_oom(event)
            self._add(event, ReconcileHint(HealthSource.DOCKER_EVENT, oom={event.container_id: event.time_ns}))
            return
        stop_signalled, killed = _recently(self._stop_signalled, event), _recently(self._killed, event)
        if _recently(self._signalled, event) and event.signal_is_label:
            # Whichever signal: a person's stop is not undone, and the end is reported all the same.
            stop_signalled = True
        if event.what is ContainerEventKind.DIE:
            self._signals.died(event)
        which, none = frozenset({event.container_id}), frozenset[str]()
        unexplained = event.what is ContainerEventKind.DIE and not stop_signalled and not killed
        hint = ReconcileHint(
            HealthSource.DOCKER_EVENT,
            containers=which,
            signalled=which if stop_signalled or killed else none,
            died=which if event.what is ContainerEventKind.DIE else none,
            unexplained=which if unexplained else none,
        )
        self._add(event, hint, delay_s=RESTART_GRACE_S if stop_signalled else 0.0)

    def _note_sender(self, event: ContainerEvent) -> None:
        """Remember who sent a signal to end."""
        if event.signal in ASKING_NOTHING - {_SIGKILL} and not event.signal_is_label:
            return
        self._signals.note(event, sender_of_signal(event.time_ns, self._run_after_signal()))

    def _run_after_signal(self) -> RuntimeRun | None:
        """The runtime's run; None once it accepted no call since the feed was connected."""
        if self._goes_down:
            return None
        try:
            return self._present_run()
        except DependencyError as error:
            self._goes_down = True
            self._logger.debug("the runtime accepts no calls after a signal", extra={"error": str(error)})
            return None

    def _count_oom(self, event: ContainerEvent) -> None:
        """Count out-of-memory events of a container; log their number once in `OOM_PAUSE_S`."""
        now = monotonic()
        since, number = self._ooms.setdefault(event.container_id, (now, -1))
        number += 1
        if number and now - since >= OOM_PAUSE_S:
            self._logger.warning(
                "container ran out of memory again",
                extra={"game_id": event.game_id, "container_id": event.container_id, "times": number},
            )
            since, number = now, 0
        self._ooms[event.container_id] = since, number
        if len(self._ooms) > SIGNALS_REMEMBERED:
            self._ooms.popitem(last=False)

    def _add(self, event: ContainerEvent, hint: ReconcileHint, delay_s: float = 0.0) -> None:
        self._reconcile_queue.add(event.game_id, hint, delay_s=delay_s)


def _remember(remembered: OrderedDict[str, int], event: ContainerEvent) -> None:
    remembered[event.container_id] = event.time_ns + round(event.explains_for_s * 10**9)
    if len(remembered) > SIGNALS_REMEMBERED:
        remembered.popitem(last=False)


def _recently(remembered: OrderedDict[str, int], event: ContainerEvent) -> bool:
    """Whether the container has an entry that is recent enough; the entry is removed."""
    until_ns = remembered.pop(event.container_id, None)
    return until_ns is not None and event.time_ns <= until_ns
