"""A real image registry for tests of pulls.

    with registry.start() as shop:
        ref = shop.push("redis:7-alpine", "game:1.0.0")
        daemon.client().pull(ref)

Docker trusts a registry on a loopback address without TLS, and the daemon reaches this one at 127.0.0.1 whether
it shares this machine's network or publishes its port. What is pushed is not left behind under its new name, so
a later pull is a real one; what was pulled is removed by `close`, or, of a run that was killed, by the next start.
"""

import http.client
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from harness import daemon, images, listening, runner
from harness.container import HTTP_NOT_YET, Container
from harness.errors import HarnessError
from harness.listening import LOOPBACK, Endpoint

if TYPE_CHECKING:
    from docker import APIClient

PORT = 5000

#: The registry's address for pushes. A local name is needed for a push, and its usual one may be that of an image
#: that was pulled.
PUSH_HOST = "localhost"

#: The first part of each repository's name; the run's id follows, by which a killed run's images are known.
NAMESPACE = "rtm-it-"

#: A registry on this machine that has not answered after so many seconds is another program, or stuck.
ANSWER_TIMEOUT_S = 5

#: The header with the mark that the registry was started with.
_MARK_HEADER = "X-Rtm-Mark"

#: The part of a line of the access log that says what was asked and what came of it.
_LOGGED = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3}) ')


@dataclass(frozen=True)
class Request:
    """One request that the registry answered."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Registry:
    """A running image registry; `host` and `port` are where it answers from here."""

    container: Container
    host: str
    port: int

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reference(self, name: str) -> str:
        """The full reference of `name`, a repository and its tag."""
        return reference(self.port, name)

    def push(self, image: str, name: str = "game:1.0.0") -> str:
        """Push a local image under `name`, in place of what had it before; its full reference.

        The image keeps the names that it had; one that had none is gone from the daemon. What was pulled under
        this name stays as it is.
        """
        client = self.container.client
        by_way_of = reference(self.port, name, PUSH_HOST)
        repository, _, tag = by_way_of.rpartition(":")
        client.tag(image, repository, tag)
        try:
            for event in client.push(repository, tag, stream=True, decode=True):
                if error := event.get("error"):
                    raise HarnessError(f"{image} cannot be pushed as {by_way_of}: {error}")
        finally:
            client.remove_image(by_way_of)
        return self.reference(name)

    def requests(self) -> list[Request]:
        """Every request so far, oldest first."""
        mark = f"/v2/?{secrets.token_hex(8)}"
        answer_to(self.host, self.port, mark)
        self.container.wait_for_log(mark)  # what was asked before stands before it
        seen = _LOGGED.findall(self.container.logs().partition(mark)[0])
        return [Request(method, path, int(status)) for method, path, status in seen if not path.startswith("/v2/?")]

    def times_asked_for(self, ref: str) -> int:
        """How often it was asked what `ref` is: once for each pull, also of an image that is there already."""
        repository, _, tag = ref.partition("/")[2].rpartition(":")
        path = f"/v2/{repository}/manifests/{tag}"
        return sum(each.path == path and each.method in ("HEAD", "GET") for each in self.requests())

    def close(self) -> None:
        """Take it away, and every image that was pulled from it; raises HarnessError when one is still in use."""
        try:
            forget_images(self.container.client, f"{LOOPBACK}:{self.port}/")
        finally:
            self.container.remove()


def start(image: str | None = None) -> Registry:
    """Start a registry and wait until it answers; raises WaitFailed with its log."""
    sweep_images(daemon.client())
    return Registry(*listening.start("registry", image or images.image_registry(), PORT, _listen, _wait))


def reference(port: int, name: str, host: str = LOOPBACK) -> str:
    """The reference of `name` in this run's part of a registry on `port`, as the daemon knows it."""
    return f"{host}:{port}/{NAMESPACE}{runner.current().run}/{name}"


def answer_to(host: str, port: int, path: str) -> http.client.HTTPResponse:
    """The registry's answer to GET `path`, its body not read and its connection closed."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse()
    finally:
        connection.close()


def forget_images(client: "APIClient", prefix: str) -> None:
    """Remove every image reference that begins with `prefix`; raises HarnessError when some are in use."""
    if in_use := _remove(client, (ref for ref in references(client) if ref.startswith(prefix))):
        raise HarnessError(f"{'; '.join(in_use)}: take away what runs an image before its registry")


def sweep_images(client: "APIClient") -> list[str]:
    """Remove what was pulled from registries of runs that have no container any more; the references.

    What is still in use is left for another time.
    """
    ours = re.compile(rf"(?:{re.escape(LOOPBACK)}|{PUSH_HOST}):\d+/{NAMESPACE}(\w+)/")
    found = [(match[1], ref) for ref in references(client) if (match := ours.match(ref))]
    label = f"{runner.PREFIX}run"
    # Looked for after the images: a run that has one by now had its registry before.
    alive = {each["Labels"][label] for each in client.containers(all=True, filters={"label": label})}
    left = [ref for run, ref in found if run not in alive]
    _remove(client, left)
    return sorted(set(left).difference(references(client))) if left else []


def references(client: "APIClient") -> Iterator[str]:
    """Every image's references: its tags, then its digests, which are all that an image is left when its tag moves."""
    for image in client.images():
        yield from image["RepoTags"] or ()
        yield from image["RepoDigests"] or ()


def _remove(client: "APIClient", refs: Iterable[str]) -> list[str]:
    """Remove image references; what the daemon says of those that are in use."""
    from docker.errors import APIError, ImageNotFound

    in_use = []
    for ref in refs:
        try:
            client.remove_image(ref)
        except ImageNotFound:
            continue  # a digest goes with the last tag of its repository
        except APIError as error:
            if error.status_code != 409:
                raise
            in_use.append(str(error.explanation))
    return in_use


def _listen(at: Endpoint) -> list[str]:
    return [f"{at.host.strip('*')}:{at.port}", at.mark]


def _wait(running: Container, at: Endpoint) -> None:
    def answers() -> bool:
        return answer_to(at.host, at.port, "/v2/").getheader(_MARK_HEADER) == at.mark

    running.wait_until("the image registry", answers, retry_on=HTTP_NOT_YET)
