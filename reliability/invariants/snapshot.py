"""The state at one moment as plain values, so that the checks and their tests need no server."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtmanager.domain.jobs import STREAM_ORDER
from rtmanager.domain.messages import Stream

#: The labels of a game's container, as the contract defines them.
OWNER_LABELS = {"com.galaxy.owner": "rtmanager", "com.galaxy.kind": "game-engine"}
GAME_LABEL = "com.galaxy.game_id"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """An entry that was added to an input stream; one without a game becomes a dead letter."""

    stream: str
    entry_id: str
    game_id: str | None

    @property
    def source_ref(self) -> str:
        """Its source_ref in the operation log."""
        return f"{self.stream}:{self.entry_id}"

    @property
    def position(self) -> tuple[int, int, int]:
        """Its place in the order over all input streams; equal ids have the order of the streams."""
        milliseconds, _, sequence = self.entry_id.partition("-")
        return int(milliseconds), int(sequence), STREAM_ORDER[Stream(self.stream.rpartition(":")[2])]


@dataclass(frozen=True)
class Bystander:
    """A container without a record, in its initial state."""

    container_id: str
    started_at: str


@dataclass(frozen=True)
class Snapshot:
    """The input of all checks."""

    records: Mapping[str, Row] = field(default_factory=dict)
    #: Rows of the operation log in the order of their ids.
    log: Sequence[Row] = ()
    snapshots: Mapping[str, Row] = field(default_factory=dict)
    #: Entries of the output streams, oldest first.
    results: Sequence[Row] = ()
    health: Sequence[Row] = ()
    intents: Sequence[Row] = ()
    dead_letters: Sequence[Row] = ()
    #: The managers' containers by labels and network, without bystanders, as Docker inspects them.
    containers: Sequence[Row] = ()
    #: Each given bystander, and its inspection now; None when it is gone.
    bystanders: Sequence[tuple[Bystander, Row | None]] = ()
    #: The games that have a directory.
    directories: Collection[str] = ()
    #: Files of the test, with their original and their present content; None when it is gone.
    markers: Mapping[Path, tuple[str, str | None]] = field(default_factory=dict)

    def stories(self) -> Mapping[str, Sequence[Row]]:
        """The log by games."""
        found: dict[str, list[Row]] = {}
        for row in self.log:
            found.setdefault(row["game_id"], []).append(row)
        return found

    def alive(self) -> Iterator[Row]:
        """The containers whose process exists, frozen or not."""
        return (each for each in self.containers if is_alive(each))


def is_alive(container: Row) -> bool:
    """Whether its process exists; a paused one's does."""
    return bool(container["State"]["Running"])


def game_of(container: Row) -> str:
    """The game in its label."""
    return str(container["Config"]["Labels"].get(GAME_LABEL, ""))


def named(container: Row) -> str:
    """A readable name of a container: its short id, name and state."""
    return f"{short(container['Id'])} ({container['Name'].lstrip('/')}, {container['State']['Status']})"


def short(container_id: str | None) -> str:
    """An id as Docker's own tools show it."""
    return (container_id or "none")[:12]
