"""Remembers the signals that containers got, until an end that they explain.

Events are hints and may be lost: a runtime that is killed reports no death, and a pass finds the end later. So this
memory, and not the hint, names the sender of the last signal when the end is decided on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from rtmanager.domain.container import ContainerView
from rtmanager.domain.outage import Sender
from rtmanager.ports.watching import ContainerEvent

#: Containers whose latest signal is remembered; an engine may ignore a stop signal for ever.
REMEMBERED = 4096
RUNTIMES = frozenset({Sender.RUNTIME, Sender.ENDED_RUNTIME})
#: Nanoseconds by which the time of a death may precede the end that it reports: an old daemon's has whole seconds.
DEATH_NS = 10**9


@dataclass(slots=True)
class _Signal:
    sender: Sender
    #: Until when it explains an end: by this process's monotonic clock, and in nanoseconds of the runtime's clock.
    until: float
    until_ns: int
    #: The game whose container died of it, until an end of that container is decided on.
    undecided: str = ""


class SignalMemory:
    """Who sent the latest signal to each container; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signals: OrderedDict[str, _Signal] = OrderedDict()

    def note(self, event: ContainerEvent, sender: Sender) -> None:
        """Remember a signal, unless a person's stop is under way: the runtime may go down during it."""
        now, for_s = monotonic(), event.explains_for_s
        with self._lock:
            known = self._signals.get(event.container_id)
            # Another signal of a person takes over only if it explains an end for longer.
            least = now + for_s if sender is Sender.PERSON else now
            if known is not None and known.sender is Sender.PERSON and known.until > least:
                return
            until_ns = event.time_ns + round(for_s * 10**9)
            self._signals[event.container_id] = _Signal(sender, now + for_s, until_ns)
            self._signals.move_to_end(event.container_id)
            if len(self._signals) > REMEMBERED:
                self._signals.popitem(last=False)

    def died(self, event: ContainerEvent) -> None:
        """Tie the signal to this death, so that it explains no later end of the same container."""
        now = monotonic()
        with self._lock:
            known = self._signals.get(event.container_id)
            if known is not None and known.until >= now:
                known.until, known.until_ns = now, event.time_ns + DEATH_NS
                known.undecided = event.game_id

    def feed_broke(self) -> None:
        """Note that the runtime went down after the signals that it sent."""
        now = monotonic()
        with self._lock:
            for known in self._signals.values():
                if known.sender is Sender.RUNTIME and (known.until > now or known.undecided):
                    known.sender = Sender.ENDED_RUNTIME

    def connected_again(self, broken_at: float) -> None:
        """Leave out the time since the feed broke: a container may end as late as its runtime is back."""
        away = monotonic() - broken_at
        with self._lock:
            for known in self._signals.values():
                if known.until > broken_at:
                    known.until += away
                    known.until_ns += round(away * 10**9)

    def sender(self, ended: ContainerView) -> Sender | None:
        """Return who sent the signal that explains the end of this container; None when none does."""
        with self._lock:
            known = self._signals.get(ended.container_id)
            if known is not None:
                known.undecided = ""
            explains = known is not None and (ended.finished_at is None or _ns(ended.finished_at) <= known.until_ns)
            return known.sender if known is not None and explains else None

    def undecided(self, within_s: float) -> Mapping[str, str]:
        """Return the containers by game that died lately of another's signal than the runtime's, and await a decision.

        Lately: within so many seconds, after which a pass has decided.
        """
        since = monotonic() - within_s
        with self._lock:
            return {
                signal.undecided: container_id
                for container_id, signal in self._signals.items()
                if signal.undecided and signal.sender not in RUNTIMES and signal.until >= since
            }


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 10**9)
