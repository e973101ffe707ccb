"""Starting a server in a container where its clients reach it soonest.

Where the local daemon allows it the server shares this machine's network and listens on loopback only. That
saves the container a network of its own, which takes longer to make than the server takes to start (two
servers at once answer after 0.25 s in place of 0.6 s), and it keeps its port through a restart, which a
published port does not. Elsewhere its port is published as usual.
"""

import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from harness import container, daemon
from harness.container import Container
from harness.errors import WaitFailed

#: A free port may be taken by another process before the server listens on it; so often in a row, never.
ATTEMPTS = 5

LOOPBACK = "127.0.0.1"

#: What a server says in its log when its port is taken, in whatever case.
_PORT_TAKEN = "address already in use"

#: Daemons whose "host" network is not the one of this process.
_OTHER_NETWORK = ("name=rootless", "name=userns")


@dataclass(frozen=True)
class Endpoint:
    """Where a server is to listen, and the mark by which it is known.

    Without the mark, a test could talk to the server of another run that was quicker to take the port.
    """

    host: str
    port: int
    mark: str


def start(
    what: str,
    image: str,
    port: int,
    listen: Callable[[Endpoint], Sequence[str]],
    wait: Callable[[Container, Endpoint], None],
) -> tuple[Container, str, int]:
    """Start a server; the container, and the host and port where it answers.

    `what` it is stands in the container's name. `listen` gives the server's arguments for an endpoint; `port` is
    where it listens on a network of its own; `wait` waits until the server with the endpoint's mark answers there.
    What is raised leaves nothing behind.
    """
    mark = secrets.token_hex(8)
    if not shares_our_network():
        running = container.start(image, name=_name(what), command=listen(Endpoint("*", port, mark)), ports=[port])
        with _removed_on_failure(running):
            host, published = running.wait_for_address(port)
            wait(running, Endpoint(host, published, mark))
        return running, host, published
    for attempt in range(1, ATTEMPTS + 1):
        chosen = Endpoint(LOOPBACK, free_port(), mark)
        running = container.start(image, name=_name(what), command=listen(chosen), network="host")
        try:
            with _removed_on_failure(running):
                wait(running, chosen)
        except WaitFailed as failure:
            if attempt == ATTEMPTS or _PORT_TAKEN not in str(failure).lower():
                raise
        else:
            break
    return running, chosen.host, chosen.port


def _name(what: str) -> str:
    """A name of its own for each try: Docker may hold on to the last one for a moment."""
    return f"rtm-it-{what}-{secrets.token_hex(5)}"


def free_port() -> int:
    """A port of the loopback address that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@cache
def shares_our_network() -> bool:
    """Whether a container on the daemon's host network listens where this process connects."""
    if daemon.published_address() != (LOOPBACK, LOOPBACK):
        return False
    info = daemon.client().info()
    rootless = any(option.startswith(_OTHER_NETWORK) for option in info["SecurityOptions"])
    return not rootless and info["OperatingSystem"] != "Docker Desktop"


@contextmanager
def _removed_on_failure(running: Container) -> Iterator[None]:
    try:
        yield
    except BaseException:
        running.remove()
        raise
