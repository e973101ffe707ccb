"""A real Redis for tests, which keeps nothing on disk."""

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from harness import container, images

if TYPE_CHECKING:
    from redis import Redis as Client

PORT = 6379


@dataclass(frozen=True)
class Redis:
    """A running Redis server."""

    container: container.Container
    host: str
    port: int

    def __enter__(self) -> "Redis":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Host and port, as RTMANAGER_REDIS_MASTER_ADDR takes them."""
        return f"{self.host}:{self.port}"

    def client(self) -> "Client":
        """A client of the test's own, which reads text."""
        from redis import Redis as Client

        return Client(host=self.host, port=self.port, decode_responses=True)

    def flush(self) -> None:
        """Forget everything: streams, their consumer groups, scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def close(self) -> None:
        """Take the server away."""
        self.container.remove()


def start(image: str | None = None) -> Redis:
    """Start a server and wait until it answers; raises WaitFailed with its log."""
    from redis.exceptions import ConnectionError as NotYet

    running = container.start(image or images.redis(), ports=[PORT])
    try:
        server = Redis(running, *running.wait_for_address(PORT))
        with server.client() as client:
            running.wait_until("Redis", client.ping, retry_on=(NotYet,))
    except BaseException:
        running.remove()
        raise
    return server
