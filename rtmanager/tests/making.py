"""Factories for common test values, with defaults for the fields that a test does not care about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from rtmanager.domain.container import (
    KIND,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerState,
    ContainerView,
    Limits,
)
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.game import container_name, engine_endpoint
from rtmanager.domain.jobs import Entry, EntryId, Job, read_job
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import KINDS, Completion, LogEntry, OpKind, OpSource, Outcome, Request
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.operations.tools import EngineSettings
from rtmanager.ports.runtime import PullPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = "galaxy/game:1.0.0"
IMAGE_2 = "galaxy/game:1.0.1"
NETWORK = "galaxy-net"
LIMITS = Limits(1.0, 512 << 20, 512)
SETTINGS = EngineSettings(
    network=NETWORK,
    default_limits=LIMITS,
    pull_policy=PullPolicy.IF_MISSING,
    stop_grace_s=30,
    mount_path="/var/lib/galaxy-game",
    state_env_name="GAME_STATE_PATH",
    log_driver="json-file",
    log_options={"max-size": "10m"},
)


def record(game_id: str = "g1", status: Status = Status.RUNNING, **changes: Any) -> RuntimeRecord:
    """A record in the given status, as the operations leave it."""
    values: dict[str, Any] = {
        "game_id": game_id,
        "status": status,
        "current_container_id": None if status is Status.REMOVED else f"c-{game_id}",
        "current_image_ref": IMAGE,
        "engine_endpoint": engine_endpoint(game_id),
        "state_path": f"/var/lib/galaxy-games/{game_id}",
        "docker_network": NETWORK,
        "started_at": NOW,
        "stopped_at": None if status is Status.RUNNING else NOW,
        "removed_at": NOW if status is Status.REMOVED else None,
        "last_op_at": NOW,
        "created_at": NOW,
    }
    return RuntimeRecord(**{**values, **changes})


def request(game_id: str = "g1", kind: OpKind = OpKind.START, **changes: Any) -> Request:
    """A request over REST, unless `source` names another source."""
    values: dict[str, Any] = {"source": OpSource.GM_REST, "source_ref": "req-1"}
    if KINDS[kind].takes == "image_ref":
        values["image_ref"] = IMAGE
    return Request(game_id, kind, **{**values, **changes})


def start_fields(game_id: str = "g1", **changes: str) -> dict[str, str]:
    """The fields of a valid start job."""
    return {"game_id": game_id, "image_ref": IMAGE, "requested_at_ms": "1767225600000", **changes}


def stop_fields(game_id: str = "g1", **changes: str) -> dict[str, str]:
    """The fields of a valid stop job."""
    return {"game_id": game_id, "reason": "finished", "requested_at_ms": "1767225600000", **changes}


#: The fields of a valid job, by stream and game.
JOB_FIELDS: Mapping[Stream, Callable[[str], dict[str, str]]] = {
    Stream.START_JOBS: start_fields,
    Stream.STOP_JOBS: stop_fields,
}


def entry(stream: Stream, milliseconds: int, fields: Mapping[str, str] | None = None, sequence: int = 0) -> Entry:
    """An entry of an input stream; without `fields` a valid job for game g1."""
    if fields is None:
        fields = JOB_FIELDS[stream]("g1")
    return Entry(stream, EntryId(milliseconds, sequence), fields)


def job(stream: Stream, milliseconds: int, fields: Mapping[str, str] | None = None, sequence: int = 0) -> Job:
    """The job of such an entry."""
    return read_job(entry(stream, milliseconds, fields, sequence), f"runtime:{stream}")


def ended(outcome: Outcome = Outcome.SUCCESS, **changes: Any) -> Completion:
    """A completion that changes nothing but what `changes` names."""
    return Completion(outcome=outcome, **changes)


def log_entry(game_id: str = "g1", kind: OpKind = OpKind.START, **changes: Any) -> LogEntry:
    """One row of the operation log."""
    values: dict[str, Any] = {
        "source": OpSource.GM_REST,
        "source_ref": "req-1",
        "outcome": Outcome.SUCCESS,
        "started_at": NOW,
        "finished_at": NOW,
    }
    return LogEntry(game_id, kind, **{**values, **changes})


def view(
    game_id: str = "g1",
    state: ContainerState = ContainerState.RUNNING,
    *,
    container_id: str = "c-1",
    image_ref: str = IMAGE,
    labels: Mapping[str, str] | None = None,
    **changes: Any,
) -> ContainerView:
    """A container as the manager creates it; `labels` replaces some of its labels."""
    own = {LABEL_OWNER: OWNER, LABEL_KIND: KIND, LABEL_GAME_ID: game_id, LABEL_IMAGE_REF: image_ref}
    values: dict[str, Any] = {"name": container_name(game_id), "networks": frozenset({NETWORK})}
    return ContainerView(
        container_id=container_id,
        image_ref=image_ref,
        state=state,
        labels={**own, **(labels or {})},
        **(values | changes),
    )


def quiet() -> logging.Logger:
    """A logger without output, outside the logger tree."""
    logger = logging.Logger("quiet")
    logger.addHandler(logging.NullHandler())
    return logger


class LogCapture(logging.Handler):
    """A log handler that keeps the log records, with a logger of its own."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.logger = logging.Logger("captured", logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        """The messages in order."""
        return [record.getMessage() for record in self.records]


#: Every error code that an answer may have.
FAILURES = frozenset(ErrorCode) - {ErrorCode.REPLAY_NO_OP, ErrorCode.DOCKER_UNAVAILABLE}
