"""A real Redis for tests, which keeps nothing on disk."""

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from harness import container, images, listening
from harness.listening import Endpoint

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

    def client(self, timeout_s: float | None = None) -> "Client":
        """A client of the test's own, which reads text; a command may take `timeout_s`, by default for ever."""
        from redis import Redis as Client

        return Client(host=self.host, port=self.port, decode_responses=True, socket_timeout=timeout_s)

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
    return Redis(*listening.start("redis", image or images.redis(), PORT, _listen, _wait))


def _listen(at: Endpoint) -> list[str]:
    # The name for the system's log, which is not used, is a setting that can be asked for again.
    return ["--bind", at.host, "--port", str(at.port), "--syslog-ident", at.mark]


def _wait(running: container.Container, at: Endpoint) -> None:
    from redis import Redis as Client
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    # The wait itself tries again, and it must not hang on a port that another program has taken.
    impatient = Client(host=at.host, port=at.port, decode_responses=True, socket_timeout=1, retry=Retry(NoBackoff(), 0))
    with impatient as client:
        running.wait_until(
            "Redis",
            lambda: client.config_get("syslog-ident") == {"syslog-ident": at.mark},
            retry_on=(RedisError,),
        )
