"""A process that reads records with several clients on kept connections, and times each request.

    python -m bench.rest.readers PORT CLIENTS READS SEED

Each client sends the next request when it has its answer, and checks status and game of every answer.
"""

import json
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.errors import BenchError
from bench.rest import games
from bench.rest.wire import RUNTIMES, SILENCE_S, Line

#: Uncounted answers of each client: the server then has all its connections to PostgreSQL.
FIRST_READS = 4


@dataclass(frozen=True)
class Reading:
    """The result in seconds: from the first request to the last answer, and each request."""

    whole_s: float
    each_s: list[float]


def read(port: int, *, clients: int, reads: int, seed: int) -> Reading:
    """Read records of random games in a child process. Raises BenchError when an answer is wrong."""
    arguments = [str(value) for value in (port, clients, reads, seed)]
    done = subprocess.run([sys.executable, "-m", __name__, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BenchError("the readers were not answered as they should be; the reason is above")
    return Reading(**json.loads(done.stdout))


@dataclass
class Client:
    """A connection, and its last request."""

    line: Line
    game_id: str = ""
    sent_at: float = 0.0

    def request(self, game_id: str) -> None:
        """Send the next request."""
        self.game_id, self.sent_at = game_id, time.perf_counter()
        self.line.request(f"{RUNTIMES}/{game_id}")

    def answered(self) -> bool:
        """Receive data; whether the answer is complete. Raises BenchError when it is another record."""
        body = self.line.receive()
        if body is not None and b'"%s"' % self.game_id.encode() not in body:
            raise BenchError(f"asked for {self.game_id}, and got {body!r}")
        return body is not None


class _Readers:
    """All clients, on one thread."""

    def __init__(self, port: int, clients: int) -> None:
        lines = [Line.to(port) for _ in range(clients)]
        self._clients = {line.connection.fileno(): Client(line) for line in lines}
        self._ready = select.epoll()
        for descriptor in self._clients:
            self._ready.register(descriptor, select.EPOLLIN)

    def read(self, wanted: Iterator[str]) -> Iterator[float]:
        """Yield the seconds of each read, in the order of the answers."""
        under_way = sum(self._request(client, wanted) for client in self._clients.values())
        while under_way:
            ready = self._ready.poll(SILENCE_S)
            if not ready:
                raise BenchError(f"{under_way} requests were not answered within {SILENCE_S:g} s")
            for descriptor, _ in ready:
                client = self._clients[descriptor]
                if client.answered():
                    yield time.perf_counter() - client.sent_at
                    under_way -= not self._request(client, wanted)

    def _request(self, client: Client, wanted: Iterator[str]) -> bool:
        game_id = next(wanted, None)
        if game_id is not None:
            client.request(game_id)
        return game_id is not None


def _main(port: int, clients: int, reads: int, seed: int) -> None:
    readers, ids, random_games = _Readers(port, clients), games.ids(), random.Random(seed)
    for _ in readers.read(iter(ids[: clients * FIRST_READS])):
        pass
    wanted = random_games.choices(ids, k=reads)
    began = time.perf_counter()
    each = list(readers.read(iter(wanted)))
    print(json.dumps({"whole_s": time.perf_counter() - began, "each_s": each}))  # noqa: T201


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
