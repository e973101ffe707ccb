"""The listener to Docker events, against a loop that reads the same events and discards them.

An event counts as received when the listener has queued its game and requests the next event. Reconciling the games
is not included: many threads do it, and the burst is over long before they finish.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from docker import APIClient

from bench import child
from bench.comparison import Contest, Sample, Side
from bench.errors import BenchError
from bench.figures import percentile
from bench.measure import Measure
from bench.synthetic import games
from bench.watch.clocks import on_both_clocks
from harness.errors import WaitFailed
from harness.waiting import wait_until
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.ports.watching import ContainerEvent, UnreadableEvent
from rtmanager.workers.reconcile.listener import EventListener
from rtmanager.workers.reconcile.queue import ReconcileQueue

EVENTS = 5000
ROUNDS = 5

#: Seconds to wait for the whole burst.
RECEIVED_S = 20.0

#: Limit of the delay, in seconds, for 99 events in 100.
LATE_S = 1.0


@dataclass
class Listening:
    """The comparison, and the delays of our listener's events over all its rounds."""

    _late_s: list[float] = field(default_factory=list)
    _lost: int = 0

    def contests(self) -> Iterator[Contest]:
        """As many games as events; each game crashes once."""
        with child.running("bench.synthetic.daemon", str(EVENTS)) as host:
            yield Contest(
                f"{EVENTS:,} events at once",
                Side("heard, each game queued for a look", lambda: self._ours(host)),
                [Side("read by the SDK and forgotten", lambda: _receive(lambda: Reader(host), host)[0])],
                rounds=ROUNDS,
                amount=EVENTS,
            )

    def measures(self) -> Iterator[Measure]:
        """The delay from an event to its game's place in the queue, and the lost events, over all rounds."""
        late = percentile(self._late_s, 99)
        yield Measure("an event to its game's place in the queue, p99", late * 1000, "ms", at_most=LATE_S * 1000)
        yield Measure(f"lost of {len(self._late_s) + self._lost:,} events", self._lost, "", at_most=0)

    def _ours(self, host: str) -> Sample:
        sample, lost = _receive(lambda: Listener(host, self._late_s), host)
        self._lost += lost
        return sample


class Listener:
    """Our event listener, with a queue that no worker reads."""

    def __init__(self, host: str, late_s: list[float]) -> None:
        self.received: list[str] = []
        self._late_s = late_s
        self._since_ns = time.time_ns()
        self._events = DockerEvents(host)
        logger = logging.getLogger("bench")
        listener = EventListener(self, ReconcileQueue(lambda *_: True, logger=logger), missed=_missed, logger=logger)
        self._thread = threading.Thread(target=listener.step, name="bench-events", daemon=True)
        self._thread.start()

    def connect(self) -> None:
        """See `EventFeed`."""
        self._events.connect()

    def listen(self) -> Iterator[ContainerEvent]:
        """See `EventFeed`: a request for the next event means that the last one is handled. Skips past events."""
        for event in self._events.listen():
            if isinstance(event, UnreadableEvent):
                continue
            yield event
            if event.time_ns >= self._since_ns:
                self._late_s.append((time.time_ns() - event.time_ns) / 1e9)
                self.received.append(event.game_id)

    def interrupt(self) -> None:
        """See `EventFeed`."""
        self._events.interrupt()

    def close(self) -> None:
        """Stop listening."""
        self._events.interrupt()
        self._thread.join()


class Reader:
    """The SDK's own iterator over decoded events."""

    def __init__(self, host: str) -> None:
        self.received: list[str] = []
        self._client = APIClient(base_url=host, version="auto")
        self._stream = self._client.events(decode=True, filters={"type": "container"})
        self._thread = threading.Thread(target=self._read, name="bench-reader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()
        self._thread.join()
        self._client.close()

    def _read(self) -> None:
        for event in self._stream:
            self.received.append(event["Actor"]["Attributes"]["com.galaxy.game_id"])


def _receive(listen: Callable[[], Listener | Reader], host: str) -> tuple[Sample, int]:
    """Crash the games while a listener runs; returns the sample and the number of events that the daemon lost.

    Raises BenchError unless the listener received every other event.
    """
    with closing(APIClient(base_url=host, version="auto")) as daemon:
        _wait(lambda: daemon.info()["Listeners"] == 0, "the listener of the round before to leave")
        with closing(listen()) as listener:
            _wait(lambda: daemon.info()["Listeners"] == 1, "a listener")
            sample, lost = on_both_clocks(lambda: _crash(daemon, listener))
    if len(set(listener.received)) != EVENTS - lost or not set(listener.received).issubset(games.ids(EVENTS)):
        raise BenchError(f"{len(listener.received)} events were received, {lost} lost, of {EVENTS}")
    return sample, lost


def _crash(daemon: APIClient, listener: Listener | Reader) -> int:
    before = daemon.info()["LostEvents"]
    daemon.post(daemon.base_url + f"/deaths?count={EVENTS}").raise_for_status()
    lost = int(daemon.info()["LostEvents"] - before)
    _wait(lambda: len(listener.received) >= EVENTS - lost, f"{EVENTS - lost} events to be received")
    return lost


def _wait(true: Callable[[], bool], what: str) -> None:
    try:
        wait_until(what, true, timeout_s=RECEIVED_S, interval_s=0.005)
    except WaitFailed as failure:
        raise BenchError(str(failure)) from None


def _missed() -> None:
    raise BenchError("the stream of events was lost")
