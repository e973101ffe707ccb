"""Published messages agree with the log and the snapshots; I7: an end is published only for an ended container."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from reliability.invariants import games
from reliability.invariants.snapshot import Job, Row, Snapshot, short

#: Failures that have an intent for an administrator.
_INTENTS = ("image_pull_failed", "container_start_failed", "start_config_invalid")

#: Health events that report the end or the loss of a container.
_ENDS = ("container_exited", "container_disappeared")
_ENDED = ("exited", "container_disappeared")


def violations(seen: Snapshot, _jobs: Sequence[Job], deaths: Collection[str] | None) -> Iterator[str]:
    """The violations about intents, health events and snapshots."""
    yield from _intents(seen)
    yield from _starts(seen)
    yield from _snapshots(seen)
    if deaths is not None:
        yield from _ends(seen, deaths)


def _intents(seen: Snapshot) -> Iterator[str]:
    published = Counter(each["idempotency_key"] for each in seen.intents)
    due = {key for row in seen.log if (key := _key(row))}
    for key, count in published.items():
        if count > 1:
            yield f"intents: {key} was sent {count} times"
        if key not in due:
            yield f"intents: {key} was sent, and the log has no such failure"
    for key in sorted(due - published.keys()):
        yield f"intents: {key} was not sent"


def _key(row: Row) -> str | None:
    if row["error_code"] not in _INTENTS:
        return None
    return f"runtime_manager:runtime.{row['error_code']}:{row['game_id']}:{row['source_ref']}"


def _starts(seen: Snapshot) -> Iterator[str]:
    published = Counter(each["container_id"] for each in seen.health if each["event_type"] == "container_started")
    due: Counter[str] = Counter()
    for rows in seen.stories().values():
        due += games.starts(rows)
    for container_id in sorted(published.keys() | due.keys()):
        if published[container_id] != due[container_id]:
            times = f"{published[container_id]} times, by the log it was started {due[container_id]} times"
            yield f"health: container_started was published of {short(container_id)} {times}"


def _snapshots(seen: Snapshot) -> Iterator[str]:
    for game_id, record in seen.records.items():
        snapshot = seen.snapshots.get(game_id)
        if snapshot is None:
            yield f"health: game {game_id} has a record and no snapshot"
        elif record["status"] == "running" and (
            snapshot["container_id"] != record["current_container_id"] or snapshot["status"] in _ENDED
        ):
            of = f"{snapshot['status']} of {short(snapshot['container_id'])}"
            yield f"health: game {game_id} runs in {short(record['current_container_id'])}, its snapshot is {of}"
    for game_id in sorted(seen.snapshots.keys() - seen.records.keys()):
        yield f"health: game {game_id} has a snapshot and no record"


def _ends(seen: Snapshot, deaths: Collection[str]) -> Iterator[str]:
    for event in seen.health:
        if event["event_type"] in _ENDS and event["container_id"] not in deaths:
            yield f"I7: {event['event_type']} was published of {short(event['container_id'])}, which nothing had ended"
    for row in seen.log:
        if row["op_kind"] == "reconcile_dispose" and row["container_id"] not in deaths:
            yield f"I7: {short(row['container_id'])} was disposed of, which nothing had ended"
