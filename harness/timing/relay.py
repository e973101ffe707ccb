"""A relay in front of the Docker daemon that records begin and end of each request.

    python -m harness.timing.relay LISTEN_SOCKET DAEMON_HOST JOURNAL

It reads no HTTP beyond the first line. A request begins with the first byte of a client after an answer, and ends with
the daemon's last byte before the next one. One line of the journal is `began ended METHOD path`, in seconds since boot.
The relay ends when its standard input does, and so with the run that started it.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from harness.timing.spans import now

CHUNK = 1 << 16


class Exchange:
    """The current request of one connection."""

    def __init__(self, journal: TextIO) -> None:
        self._journal = journal
        self._what = ""
        self._began = self._ended = 0.0
        self._answered = False

    def requested(self, chunk: bytes) -> None:
        """Handle a chunk from the client."""
        if self._what and not self._answered:
            return  # the rest of a request
        self.close()
        self._what = " ".join(chunk.partition(b"\r\n")[0].decode(errors="replace").split()[:2])
        self._began, self._answered = now(), False

    def answered(self, _chunk: bytes) -> None:
        """Handle a chunk from the daemon."""
        self._ended, self._answered = now(), True

    def close(self) -> None:
        """Write the current request to the journal."""
        if self._what:
            ended = self._ended if self._answered else now()
            self._journal.write(f"{self._began:.6f} {ended:.6f} {self._what}\n")
        self._what = ""


async def serve(listen: str, daemon: str, journal: TextIO) -> None:
    """Relay until standard input ends; writes requests of open connections to the journal then."""
    # Held here: asyncio holds its tasks by weak references only.
    open_exchanges: dict[asyncio.Task[None] | None, Exchange] = {}

    async def relay(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        exchange = open_exchanges[task] = Exchange(journal)
        try:
            server, to_server = await _dial(daemon)
            await asyncio.gather(
                _copy(client, to_server, exchange.requested),
                _copy(server, to_client, exchange.answered),
            )
        finally:
            to_client.close()
            exchange.close()
            del open_exchanges[task]

    await asyncio.start_unix_server(relay, listen)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for exchange in open_exchanges.values():
        exchange.close()


async def _dial(daemon: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(daemon)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: Callable[[bytes], None]) -> None:
    """Copy until the source ends; forwards the end, since an exec's input may end before its output."""
    with suppress(ConnectionError):  # one side disconnected
        while chunk := await source.read(CHUNK):
            seen(chunk)
            sink.write(chunk)
            await sink.drain()
    with suppress(OSError):
        if sink.can_write_eof():
            sink.write_eof()


def main(listen: str, daemon: str, journal: str) -> None:
    """Serve, and then exit at once, even with open connections."""
    with Path(journal).open("w") as file:
        asyncio.new_event_loop().run_until_complete(serve(listen, daemon, file))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
