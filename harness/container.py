"""A container of a test's own: started, waited for, looked at, and taken away again.

    with start("redis:7-alpine", ports=[6379]) as container:
        container.wait_for_port(6379)
        host, port = container.address(6379)

A wait ends at once when the container exits, and its failure shows the container's last log lines.
Every container carries the labels of its runner, so that a later run can sweep what a killed one left.
"""

import http.client
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from harness import daemon, runner
from harness.errors import HarnessError, NotPublished, WaitFailed
from harness.waiting import wait_until

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

#: A service in a container is up within this many seconds, or something is wrong.
READY_TIMEOUT_S = 30.0

#: As many log lines as help to see why a container failed.
LOG_TAIL = 30


@dataclass(frozen=True)
class Mount:
    """A directory of the host inside a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass
class Container:
    """A container that was started."""

    container_id: str
    client: "APIClient" = field(repr=False)
    _published: dict[int, int] = field(default_factory=dict, repr=False)

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def inspect(self) -> dict[str, Any]:
        """What the daemon knows of it now."""
        found: dict[str, Any] = self.client.inspect_container(self.container_id)
        return found

    @cached_property
    def name(self) -> str:
        """Its name."""
        return str(self.inspect()["Name"]).lstrip("/")

    def address(self, port: int) -> tuple[str, int]:
        """Host and port where `port` of the container is published; raises NotPublished.

        A container that has ended publishes nothing.
        """
        if port not in self._published:
            for inside, where in self.inspect()["NetworkSettings"]["Ports"].items():
                if where:
                    self._published[int(inside.partition("/")[0])] = int(where[0]["HostPort"])
        if port not in self._published:
            raise NotPublished(f"container {self.name} publishes no port {port}")
        return daemon.published_address()[1], self._published[port]

    def wait_for_address(self, port: int) -> tuple[str, int]:
        """As `address`, but where the container has ended the failure shows its log."""
        return self.wait_until(f"port {port} of {self.name}", lambda: self.address(port), retry_on=(NotPublished,))

    def ip(self, network: str | None = None) -> str:
        """Its address in `network`, by default in its only one; raises HarnessError when it has none."""
        networks = self.inspect()["NetworkSettings"]["Networks"]
        chosen = networks.get(network) if network else next(iter(networks.values()), None)
        if not chosen or not chosen["IPAddress"]:
            raise HarnessError(f"container {self.name} has no address in {network or 'any network'}")
        return str(chosen["IPAddress"])

    def logs(self, tail: int | None = None) -> str:
        """What it wrote, both streams; only the last `tail` lines when given."""
        raw: bytes = self.client.logs(self.container_id, tail="all" if tail is None else tail)
        return raw.decode(errors="replace")

    def last_words(self) -> str:
        """Its last log lines, as a text for a failure."""
        log = "\n".join(f"    {line}" for line in self.logs(LOG_TAIL).splitlines()) or "    (nothing)"
        return f"  container {self.name}, its last log lines:\n{log}"

    def exec(self, command: Sequence[str], user: str = "") -> tuple[int, str]:
        """Run `command` inside; its exit code and what it wrote."""
        made = self.client.exec_create(self.container_id, list(command), user=user)
        written: bytes = self.client.exec_start(made["Id"])
        return int(self.client.exec_inspect(made["Id"])["ExitCode"]), written.decode(errors="replace")

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send it a signal."""
        self.client.kill(self.container_id, signal)

    def stop(self, grace_s: int = 5) -> int:
        """Stop it, with `grace_s` seconds before it is killed; its exit code."""
        self.client.stop(self.container_id, timeout=grace_s)
        return int(self.inspect()["State"]["ExitCode"])

    def restart(self, grace_s: int = 5) -> None:
        """Stop it and start it again; a published port is another one then."""
        self._published.clear()
        self.client.restart(self.container_id, timeout=grace_s)

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers, until `unpause`."""
        self.client.pause(self.container_id)

    def unpause(self) -> None:
        """Let it go on."""
        self.client.unpause(self.container_id)

    def remove(self) -> None:
        """Take it away, running or not; nothing happens when it is gone already."""
        remove(self.client, self.container_id)

    def wait_until(self, what: str, probe: Callable[[], T | None], timeout_s: float = READY_TIMEOUT_S, **how: Any) -> T:
        """As `waiting.wait_until`, ending at once when the container exits; failures show its log."""
        try:
            seen: T = wait_until(what, probe, timeout_s=timeout_s, hopeless=self._why_ended, **how)
        except WaitFailed as failure:
            raise WaitFailed(f"{failure}\n{self.last_words()}") from None
        return seen

    def wait_for_port(self, port: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until something inside accepts connections on the published `port`."""
        self.wait_for_address(port)
        self.wait_until(f"port {port} of {self.name}", lambda: self._accepts(port), timeout_s)

    def wait_for_http(self, port: int, path: str = "/", timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until `path` on the published `port` answers 200."""
        host, published = self.wait_for_address(port)
        what = f"GET http://{host}:{published}{path} of {self.name} answering 200"
        self.wait_until(what, lambda: http_ok(host, published, path), timeout_s, retry_on=HTTP_NOT_YET)

    def wait_for_log(self, text: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it has written `text`."""
        self.wait_until(f"{text!r} in the log of {self.name}", lambda: text in self.logs(), timeout_s)

    def wait_for_exit(self, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait until it ends; its exit code."""

        def ended() -> bool:
            return not self.inspect()["State"]["Running"]

        wait_until(f"the end of {self.name}", ended, timeout_s=timeout_s)
        return int(self.inspect()["State"]["ExitCode"])

    def _accepts(self, port: int) -> bool:
        """A proxy in between accepts for the service before it listens, and then hangs up at once."""
        with socket.create_connection(self.address(port), timeout=1) as connection:
            connection.settimeout(0.05)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True  # open and silent: the service waits for our first word

    def _why_ended(self) -> str | None:
        state = self.inspect()["State"]
        if state["Running"]:
            return None
        return f"the container ended with exit code {state['ExitCode']} {state['Error']}".rstrip()


#: What an HTTP service that is still starting answers with.
HTTP_NOT_YET = (OSError, http.client.HTTPException)


def http_ok(host: str, port: int, path: str) -> bool:
    """Whether GET `path` answers 200; raises HTTP_NOT_YET for anything less than an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    finally:
        connection.close()


def start(
    image: str,
    *,
    command: Sequence[str] | None = None,
    entrypoint: Sequence[str] | None = None,
    name: str | None = None,
    hostname: str | None = None,
    env: Mapping[str, str] | None = None,
    ports: Sequence[int] = (),
    mounts: Sequence[Mount] = (),
    tmpfs: Mapping[str, str] | None = None,
    network: str | None = None,
    aliases: Sequence[str] = (),
    user: str | None = None,
    labels: Mapping[str, str] | None = None,
    host_config: Mapping[str, Any] | None = None,
) -> Container:
    """Start a container of `image`, which is pulled when it is not there; returns without waiting for what runs in it.

    `ports` are published on ports of Docker's choice, on the loopback address. `aliases` are host names by which
    others on `network` find it, besides its name. `tmpfs` maps a path to its mount options. `host_config` takes
    anything else that the Docker SDK's create_host_config knows. Raises ImageUnavailable.
    """
    client = daemon.client()
    publish_on = daemon.published_address()[0]
    settings = client.create_host_config(
        port_bindings=dict.fromkeys(ports, (publish_on,)),
        binds=[f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}" for mount in mounts],
        tmpfs=dict(tmpfs or {}),
        network_mode=network,
        **(host_config or {}),
    )
    made = _create(
        client,
        image,
        command=list(command) if command is not None else None,
        entrypoint=list(entrypoint) if entrypoint is not None else None,
        name=name,
        hostname=hostname,
        environment=dict(env or {}),
        ports=list(ports),
        user=user,
        labels={**(labels or {}), **runner.current().labels()},
        host_config=settings,
        networking_config=_endpoint(client, network, aliases),
    )
    container = Container(made["Id"], client)
    try:
        client.start(container.container_id)
    except BaseException:
        container.remove()
        raise
    return container


def _create(client: "APIClient", image: str, **settings: Any) -> dict[str, Any]:
    from docker.errors import ImageNotFound

    from harness.images import registry

    try:
        made: dict[str, Any] = client.create_container(image, **settings)
    except ImageNotFound:
        registry.pull(image)
        made = client.create_container(image, **settings)
    return made


def _endpoint(client: "APIClient", network: str | None, aliases: Sequence[str]) -> Any:
    if not aliases:
        return None
    if network is None:
        raise HarnessError(f"aliases {', '.join(aliases)} need a network of the test's own: pass network=")
    endpoint = client.create_endpoint_config(aliases=list(aliases))
    # The stubs say that this takes one endpoint; it takes endpoints by network.
    return client.create_networking_config({network: endpoint})  # type: ignore[arg-type]


def remove(client: "APIClient", container_id: str) -> None:
    """Remove a container and its anonymous volumes, running or not; nothing happens when it is gone."""
    from docker.errors import APIError, NotFound

    def removed() -> bool:
        try:
            client.remove_container(container_id, force=True, v=True)
        except NotFound:
            return True
        except APIError as error:
            if error.status_code != 409:
                raise
            return False  # a removal is under way: it ends as NotFound
        return True

    wait_until(f"the removal of container {container_id[:12]}", removed, retry_on=())
