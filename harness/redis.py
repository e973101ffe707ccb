"""A real Redis for tests, which keeps nothing on disk."""

from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from harness import container, images, listening
from harness.listening import Endpoint

if TYPE_CHECKING:
    from redis import Redis as Client

PORT = 6379

#: A server that has not answered after so many seconds is paused, or stuck.
FLUSH_TIMEOUT_S = 5.0


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
        with self._control.pipeline(transaction=False) as pipe:
            pipe.flushall()
            pipe.script_flush()
            pipe.execute()

    @cached_property
    def _control(self) -> "Client":
        """Kept from one test to the next; it connects again by itself when a test has cut it off."""
        return _client(self.host, self.port, timeout_s=FLUSH_TIMEOUT_S, tries_again=1)

    def close(self) -> None:
        """Take the server away."""
        self._control.close()
        self.container.remove()


def start(image: str | None = None) -> Redis:
    """Start a server and wait until it answers; raises WaitFailed with its log."""
    return Redis(*listening.start("redis", image or images.redis(), PORT, _listen, _wait))


def _listen(at: Endpoint) -> list[str]:
    # The name for the system's log, which is not used, is a setting that can be asked for again.
    return ["--bind", at.host, "--port", str(at.port), "--syslog-ident", at.mark]


def _wait(running: container.Container, at: Endpoint) -> None:
    from redis.exceptions import RedisError

    # The wait itself tries again, and it must not hang on a port that another program has taken.
    with _client(at.host, at.port, timeout_s=1, tries_again=0) as client:
        running.wait_until(
            "Redis",
            lambda: client.config_get("syslog-ident") == {"syslog-ident": at.mark},
            retry_on=(RedisError,),
        )


def _client(host: str, port: int, timeout_s: float, tries_again: int) -> "Client":
    """A client that gives up: by default one waits for ever, and pauses between its tries."""
    from redis import Redis as Client
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    retry = Retry(NoBackoff(), tries_again)
    return Client(host=host, port=port, decode_responses=True, socket_timeout=timeout_s, retry=retry)
