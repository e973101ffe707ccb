"""Docker's events as a feed: hints that something happened, without a gap while the daemon lives.

What is known of `GET /events` (tried on 20.10): the daemon keeps the last 256 events and drops what a slow
listener does not take; it answers before it has subscribed us; a stream that is cut looks like one that ended; and
one whose other end is gone says nothing for ever, like one on which nothing happens. So a stream is listened to for
some seconds only, and the next one begins where this one was, by the daemon's own clock: a dead line is found
out by dialling, and what comes twice is left out.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from queue import SimpleQueue

import docker
from docker.errors import APIError, create_api_error_from_http_exception
from requests import Response
from requests.exceptions import HTTPError, RequestException

from rtmanager.adapters.docker import views
from rtmanager.adapters.docker.engine import Deadlines, Engine
from rtmanager.adapters.docker.errors import reason, timed_out, words
from rtmanager.adapters.docker.lines import Allowance
from rtmanager.domain.container import KIND, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.workers.watching import ContainerEvent, Happening

#: How long one stream is listened to; a daemon that vanished without a word is noticed after so many seconds.
WINDOW_S = 15.0
#: How far back the first stream begins: the daemon's `Date` has whole seconds.
BEGIN_BEFORE_NS = 1_000_000_000
#: As many events as are told apart from those that come again; the daemon keeps 256.
REMEMBERED = 2048

_FILTERS = json.dumps(
    {
        "type": ["container"],
        "event": sorted(Happening),
        "label": [f"{LABEL_OWNER}={OWNER}", f"{LABEL_KIND}={KIND}"],
    }
)


class DockerEvents:
    """`EventFeed` of one Docker host; used by one thread, `interrupt` by another."""

    def __init__(self, host: str, *, window_s: float = WINDOW_S, deadlines: Deadlines | None = None) -> None:
        self._engine = Engine(host, deadlines or Deadlines())
        self._window_s = window_s
        self._since_ns: int | None = None
        self._heard: OrderedDict[ContainerEvent, None] = OrderedDict()
        self._stream: tuple[Response, int] | None = None
        self._interrupted = False

    def connect(self) -> None:
        """See the port."""
        if self._since_ns is None:
            ping, now_ns = self._ask(self._engine.deadlines.ping_s, "/_ping")
            ping.close()
            self._since_ns = now_ns - BEGIN_BEFORE_NS
        since = f"{self._since_ns // 10**9}.{self._since_ns % 10**9:09}"
        window = Allowance(self._window_s, begin_s=self._engine.deadlines.ping_s)
        stream, now_ns = self._ask(window, "/events", {"since": since, "filters": _FILTERS})
        if now_ns + BEGIN_BEFORE_NS < self._since_ns:
            self._since_ns = now_ns  # the daemon's clock was set back
        self._stream = stream, now_ns

    def listen(self) -> Iterator[ContainerEvent]:
        """See the port."""
        if self._stream is None:
            raise RuntimeError("connect comes before listen")
        (stream, began_ns), self._stream = self._stream, None
        with closing(stream), self._hanging_up():
            try:
                for line in _lines(stream):
                    event = views.event(json.loads(line))
                    if event is not None and self._is_new(event):
                        yield event
            except (RequestException, ValueError) as error:
                if self._interrupted:
                    return
                if not timed_out(error):
                    raise self._engine.unavailable(f"its events broke off: {reason(error)}") from error
                # The window is over, as it should be: all that happened since it began has been heard.
                self._since_ns = max(self._since_ns or 0, began_ns)
                return
        if not self._interrupted:
            raise self._engine.unavailable("its events ended")

    @contextmanager
    def _hanging_up(self) -> Iterator[None]:
        """Let the thread that takes what arrives end, before its stream is closed."""
        try:
            yield
        finally:
            self._engine.hang_up()

    def interrupt(self) -> None:
        """See the port."""
        self._interrupted = True
        self._engine.close()

    def _ask(
        self, allowance: Allowance | float, path: str, params: dict[str, str] | None = None
    ) -> tuple[Response, int]:
        """An answer, its body not yet read, and the daemon's clock when it was given."""
        try:
            answer = self._engine.ask("events", allowance, lambda client: _get(client, path, params))
        except APIError as error:
            raise self._engine.unavailable(f"asked for {path} it says {words(error)}") from error
        try:
            return answer, _daemon_time_ns(answer)
        except ValueError as error:
            answer.close()
            raise self._engine.unavailable(f"its answer to {path} has no date: {error}") from error

    def _is_new(self, event: ContainerEvent) -> bool:
        self._since_ns = max(self._since_ns or 0, event.time_ns)
        if event in self._heard:
            return False
        self._heard[event] = None
        if len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)
        return True


def _lines(stream: Response) -> Iterator[bytes]:
    """Whole lines as they arrive."""
    rest = b""
    for piece in _taken(stream):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())


def _taken(stream: Response) -> Iterator[bytes]:
    """What arrives, taken by a thread that does nothing else: Docker drops what is not taken within 100 ms."""
    pieces: SimpleQueue[bytes | Exception | None] = SimpleQueue()

    def take() -> None:
        try:
            for piece in stream.iter_content(None):
                pieces.put(piece)
        except (RequestException, ValueError) as error:
            pieces.put(error)
        except AttributeError as error:  # urllib3's, when the stream is closed meanwhile
            pieces.put(ValueError(f"the stream was closed: {error}"))
        finally:
            pieces.put(None)

    threading.Thread(target=take, name="rtm-events-taken", daemon=True).start()
    while (piece := pieces.get()) is not None:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def _get(client: docker.APIClient, path: str, params: dict[str, str] | None) -> Response:
    answer = client.get(f"{client.base_url}/v{client.api_version}{path}", params=params, stream=True)
    try:
        answer.raise_for_status()
    except HTTPError as error:
        with closing(answer):
            raise create_api_error_from_http_exception(error) from error
    return answer


def _daemon_time_ns(answer: Response) -> int:
    """What the daemon's clock said when it answered, in whole seconds."""
    return int(parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()) * 10**9
