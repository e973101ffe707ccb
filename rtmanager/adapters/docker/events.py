"""Reads Docker's event stream as hints for reconciling, without a gap while the daemon lives.

Facts about `GET /events` (verified on 20.10): the daemon keeps the last 256 events and drops what a slow client does
not read. It answers before it has subscribed the client. A stream that is cut looks like one that ended. A stream
whose peer is gone stays silent, like one without events. So each stream is read for some seconds only, and the next
begins where it began, by the daemon's clock. Dialling detects a dead connection; repeated events are dropped.

No event ends a stream. An unreadable event, and events dropped because they arrived too fast, are reported as
`UnreadableEvent`. A reconcile pass finds what they were about.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime

import docker
from docker.errors import APIError
from requests import Response
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from rtmanager.adapters.docker import decode, skim
from rtmanager.adapters.docker.answers import Unreadable
from rtmanager.adapters.docker.daemon_client import DaemonClient, Deadlines
from rtmanager.adapters.docker.errors import reason, timed_out
from rtmanager.adapters.docker.sockets import Deadline
from rtmanager.adapters.docker.tls import TlsFiles
from rtmanager.adapters.docker.transport import get
from rtmanager.adapters.docker.versions import Agreement
from rtmanager.domain.container import KIND, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind, UnreadableEvent
from rtmanager.threads import Thread

#: Seconds that the reading thread may take to end once its connection is cut.
TAKEN_S = 5.0
#: Seconds for which one stream is read; a daemon that vanished silently is detected after this time.
WINDOW_S = 15.0
#: The same for the first stream after a failure: until it is over, the worker counts as failing.
FIRST_WINDOW_S = 1.0
#: How far back the first stream begins, since the daemon's `Date` has whole seconds.
BEGIN_BEFORE_NS = 1_000_000_000
#: Events remembered to drop repeated ones; the daemon keeps 256.
REMEMBERED = 2048
#: Largest lead over the daemon's clock that an event may have to move the start of the next stream.
AHEAD_NS = 60 * 10**9
#: Bytes of unprocessed lines, and the overhead counted per line; further lines are dropped, as Docker drops them.
MOST_WAITING, LINE_BYTES = 16 << 20, 100

_FILTERS = json.dumps(
    {
        "type": ["container"],
        "event": sorted(ContainerEventKind),
        "label": [f"{LABEL_OWNER}={OWNER}", f"{LABEL_KIND}={KIND}"],
    }
)


class DockerEvents:
    """`EventFeed` of one Docker host; used by one thread, except `interrupt`."""

    def __init__(
        self,
        host: str,
        *,
        tls: TlsFiles | None = None,
        window_s: float = WINDOW_S,
        deadlines: Deadlines | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self._engine = DaemonClient(host, deadlines or Deadlines(), tls, agreement)
        self._window_s = window_s
        self._since_ns: int | None = None
        self._seen: OrderedDict[ContainerEvent, None] = OrderedDict()
        self._stream: tuple[Response, int] | None = None
        self._interrupted = False
        self._failed = False

    def connect(self) -> None:
        """See the port."""
        if self._since_ns is None:
            ping, now_ns = self._get(self._engine.deadlines.ping_s, "/_ping")
            ping.close()
            self._since_ns = now_ns - BEGIN_BEFORE_NS
        since = f"{self._since_ns // 10**9}.{self._since_ns % 10**9:09}"
        window_s = min(self._window_s, FIRST_WINDOW_S) if self._failed else self._window_s
        self._failed = True  # until its window is over
        window = Deadline(window_s, begin_s=self._engine.deadlines.ping_s)
        stream, now_ns = self._get(window, "/events", {"since": since, "filters": _FILTERS})
        if now_ns + BEGIN_BEFORE_NS < self._since_ns:
            self._since_ns = now_ns  # the daemon's clock was set back
        self._stream = stream, now_ns

    def listen(self) -> Iterator[ContainerEvent | UnreadableEvent]:
        """See the port."""
        if self._stream is None:
            raise RuntimeError("connect comes before listen")
        (stream, began_ns), self._stream = self._stream, None
        arriving = _Arriving(stream)
        with closing(stream), self._hanging_up(arriving):
            try:
                for line in arriving:
                    event = _read(line)
                    if isinstance(event, UnreadableEvent) or (event is not None and self._is_new(event, began_ns)):
                        yield event
            except (RequestException, HTTPError, OSError, ValueError) as error:
                if self._interrupted:
                    return
                if not timed_out(error):
                    raise self._engine.unavailable(f"its events broke off: {reason(error)}") from error
                # The window is over as planned: every event since it began was read.
                self._since_ns = max(self._since_ns or 0, began_ns)
                self._failed = False
                return
        if not self._interrupted:
            raise self._engine.unavailable("its events ended")

    @contextmanager
    def _hanging_up(self, arriving: _Arriving) -> Iterator[None]:
        """End the reading thread before the stream is closed and its connection reused."""
        try:
            yield
        finally:
            self._engine.hang_up()
            arriving.join()

    def interrupt(self) -> None:
        """See the port."""
        self._interrupted = True
        self._engine.close()

    def _get(self, deadline: Deadline | float, path: str, params: dict[str, str] | None = None) -> tuple[Response, int]:
        """Return an answer with its body unread, and the daemon's clock at that time."""

        def question(client: docker.APIClient) -> tuple[Response, int]:
            answer = get(client, path, params, stream=True)
            try:
                return answer, _daemon_time_ns(answer)
            except (ValueError, TypeError, OverflowError) as error:
                answer.close()
                raise Unreadable(f"its answer to {path} has no date: {error}") from error

        try:
            return self._engine.call("events", deadline, question)
        except APIError as error:
            raise self._engine.refused("events", error, request=f"GET {path}") from error

    def _is_new(self, event: ContainerEvent, began_ns: int) -> bool:
        if event.time_ns % 10**9 == 0:
            return True  # its time is in whole seconds: two events of one second look alike, and neither may be lost
        if event.time_ns <= began_ns + round(self._window_s * 10**9) + AHEAD_NS:
            self._since_ns = max(self._since_ns or 0, event.time_ns)
        if event in self._seen:
            return False
        self._seen[event] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


def _read(line: bytes | None) -> ContainerEvent | UnreadableEvent | None:
    if line is None:
        return UnreadableEvent("it is too long, or came faster than it was seen to")
    try:
        return decode.event(skim.loads(line))
    except ValueError:
        return UnreadableEvent(f"it is no JSON: {line[:40]!r}")


class _Arriving:
    """The lines of a stream, each of bounded length; None for a lost line.

    A thread of its own reads them: Docker drops what is not read within 100 ms.
    """

    def __init__(self, stream: Response) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._waiting: deque[bytes | None] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._ended = False
        self._thread = Thread(self._take, "rtm-events-taken")

    def join(self) -> None:
        """Wait for the thread, whose connection is cut by now; one that hangs is left behind."""
        if self._thread.ident is not None:
            self._thread.join(TAKEN_S)

    def __iter__(self) -> Iterator[bytes | None]:
        self._thread.start()
        while True:
            with self._changed:
                while not (self._waiting or self._ended or not self._thread.is_alive()):
                    self._changed.wait(TAKEN_S)
                if not self._waiting:
                    break
                line = self._waiting.popleft()
                self._bytes -= len(line or b"") + LINE_BYTES
            yield line
        if self._error is not None:
            raise self._error

    def _take(self) -> None:
        try:
            lines = skim.Lines()
            for piece in self._stream.iter_content(skim.PIECE):
                self._put(lines.feed(piece))
        except (RequestException, HTTPError, OSError, ValueError) as error:  # `__iter__` raises it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _put(self, lines: list[bytes | None]) -> None:
        with self._changed:
            for line in lines:
                if line is not None and self._bytes + len(line) + LINE_BYTES > MOST_WAITING:
                    line = None
                if line is None and self._waiting and self._waiting[-1] is None:
                    continue  # one None stands for any number of lost lines
                self._waiting.append(line)
                self._bytes += len(line or b"") + LINE_BYTES
            self._changed.notify()


def _daemon_time_ns(answer: Response) -> int:
    """Return the daemon's clock from the answer's `Date`, in whole seconds."""
    return int(parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()) * 10**9
