"""A process that simulates a Docker daemon with many games: `python -m bench.synthetic.daemon COUNT`.

The list of containers is the same text each time, so that a measurement has the client's work only. Two requests
differ from Docker's. `GET /info` counts the requests for the list, the listeners and the lost events.
`POST /deaths?count=N&times=M` crashes that many games, one right after the other, and sends each event M times.
"""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from bench import child
from bench.synthetic import games
from bench.synthetic.published import Published
from rtmanager.domain.game import container_name
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon

_LIST = "GET /containers/json"

#: The log of a crashed engine.
_LOG_LINE = b"out of luck\n"


class Crowd:
    """The games of one daemon; each runs until `POST /deaths` crashes it."""

    def __init__(self, daemon: FakeDaemon, count: int) -> None:
        self._daemon = daemon
        self._ids = games.ids(count)
        self._ended: dict[str, datetime] = {}
        self._published = Published()
        body = json.dumps(games.listed(count), separators=(",", ":")).encode()  # the format that Docker uses
        daemon.answers |= {
            _LIST: lambda exchange: exchange.reply_raw(200, body),
            "GET /info": self._info,
            "GET /_ping": lambda exchange: exchange.reply_raw(200, b"OK"),
            "GET /networks": lambda exchange: exchange.reply(200, [{"Id": "n", "Name": games.HOUSE.network}]),
            "GET /events": self._events,
            "POST /deaths": self._deaths,
        }
        for number, game_id in enumerate(self._ids):
            self._answer_for(number, game_id)

    def _answer_for(self, number: int, game_id: str) -> None:
        def inspect(exchange: Exchange) -> None:
            exchange.reply_raw(200, games.inspected(number, game_id, self._ended.get(game_id)))

        def logs(exchange: Exchange) -> None:
            exchange.reply_raw(200, b"\1\0\0\0" + len(_LOG_LINE).to_bytes(4, "big") + _LOG_LINE)

        for name in (games.container_id(game_id), container_name(game_id)):
            self._daemon.answers[f"GET /containers/{name}/json"] = inspect
            self._daemon.answers[f"GET /containers/{name}/logs"] = logs

    def _info(self, exchange: Exchange) -> None:
        lists, published = self._daemon.count(_LIST), self._published
        counted = {"Lists": lists, "Listeners": published.listeners, "LostEvents": published.lost}
        exchange.reply(200, {"ID": "crowd", **counted})

    def _events(self, exchange: Exchange) -> None:
        since = _query(exchange).get("since")
        exchange.chunks(self._published.events(_nanoseconds(since) if since else None, exchange.connection))

    def _deaths(self, exchange: Exchange) -> None:
        """Reply when every event is queued or lost, with the seconds that it took."""
        began, wanted = time.perf_counter(), _query(exchange)
        for _ in range(int(wanted.get("times", 1))):
            for game_id in self._ids[: int(wanted["count"])]:
                at_ns = time.time_ns()
                self._ended.setdefault(game_id, datetime.fromtimestamp(at_ns / 1e9, UTC))
                self._published.add(games.death(game_id, at_ns))
        exchange.reply(200, {"Seconds": time.perf_counter() - began})


def _query(exchange: Exchange) -> Mapping[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(exchange.path).query).items()}


def _nanoseconds(text: str) -> int:
    """Parse a time as Docker takes it: seconds, a point, up to nine digits."""
    seconds, _, rest = text.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0") or 0)


def main(count: int) -> None:
    """Serve until standard input closes."""
    with closing(FakeDaemon()) as daemon:
        Crowd(daemon, count)
        daemon.start()
        child.ready(daemon.host)


if __name__ == "__main__":
    main(int(sys.argv[1]))
