"""The table of RTM_IT_TIMING=1, from the relay's journal and the spans."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.timing.spans import Segment, overlap, union

#: Requests that stay open while the daemon is idle.
_IDLE = re.compile(r"/(events|wait|attach)\b")

#: The operation in a path, without the API version, ids and names.
_OPERATION = re.compile(r"^(?:/v[0-9.]+)?/(containers|networks|images|exec|build|info|version|_ping)(?:/(.*))?$")

_VERBS = (
    "create",
    "start",
    "stop",
    "kill",
    "restart",
    "pause",
    "unpause",
    "wait",
    "logs",
    "json",
    "push",
    "tag",
    "prune",
)


@dataclass(frozen=True)
class Request:
    """One request to the daemon."""

    began: float
    ended: float
    method: str
    path: str

    @property
    def kind(self) -> str:
        """Its operation in plain words: `containers start`."""
        found = _OPERATION.match(self.path.partition("?")[0])
        if found is None:
            return f"{self.method} elsewhere"
        verb = (found[2] or "").rpartition("/")[2]
        return f"{found[1]} {verb if verb in _VERBS else self.method.lower()}"


def read(journal: Iterable[str]) -> Iterator[Request]:
    """The requests of a journal, without idle ones."""
    for line in journal:
        began, ended, method, path = line.split(maxsplit=3)
        if not _IDLE.search(path):
            yield Request(float(began), float(ended), method, path.strip())


def merged(directory: Path) -> str:
    """The table for processes that ran side by side, from the files of each in `directory`."""
    requests: list[Request] = []
    wholes: list[tuple[float, float]] = []
    for path in sorted(directory.glob("*.timing")):
        whole, *journal = path.read_text().splitlines()
        began, ended = map(float, whole.split())
        wholes.append((began, ended))
        requests += read(journal)
    if not wholes:
        raise HarnessError(f"no process has left anything in {directory}; was RTM_IT_TIMING=1 set?")
    segment = Segment("no request under way", min(began for began, _ in wholes), max(ended for _, ended in wholes))
    return f"{len(wholes)} processes side by side\n{table(requests, [segment])}"


def table(requests: Sequence[Request], segments: Sequence[Segment]) -> str:
    """A table of the segments' time: Docker's share, and the main thread's spans without it."""
    began, ended = segments[0].began, segments[-1].ended
    busy = union((request.began, request.ended) for request in requests)
    docker = overlap(began, ended, busy)
    rest: dict[str, float] = defaultdict(float)
    for segment in segments:
        rest[segment.what] += segment.ended - segment.began - overlap(segment.began, segment.ended, busy)
    lines = [
        f"where {ended - began:.1f} s went:",
        _line("Docker at work", docker, ended - began, f"{len(requests)} requests"),
        *(_line(what, took, ended - began) for what, took in _longest_first(rest)),
        "of Docker's work, requests at the same time counted each:",
        *_kinds(requests, ended - began),
    ]
    return "\n".join(lines)


def _kinds(requests: Sequence[Request], whole: float) -> Iterator[str]:
    took: dict[str, list[float]] = defaultdict(list)
    for request in requests:
        took[request.kind].append(request.ended - request.began)
    for kind, each in sorted(took.items(), key=lambda item: -sum(item[1]))[:12]:
        yield _line(kind, sum(each), whole, f"{len(each)} times")


def _longest_first(rest: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(rest.items(), key=lambda item: -item[1])


def _line(what: str, took: float, whole: float, more: str = "") -> str:
    return f"  {what:<44} {took:7.1f} s {took / whole:7.1%}  {more}".rstrip()
