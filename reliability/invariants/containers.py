"""I2, I3, I4 and I6: containers and records name each other, and unrecorded containers are not touched."""

from collections import defaultdict
from collections.abc import Iterator

from reliability.invariants.snapshot import Bystander, Row, Snapshot, game_of, is_alive, named, short


def violations(seen: Snapshot) -> Iterator[str]:
    """The violations about containers."""
    yield from _one_each(seen)
    yield from _recorded(seen)
    yield from _running(seen)
    yield from _leftovers(seen)
    for bystander, now in seen.bystanders:
        yield from _touched(bystander, now)


def _one_each(seen: Snapshot) -> Iterator[str]:
    by_game = defaultdict(list)
    for each in seen.alive():
        by_game[game_of(each)].append(named(each))
    for game_id, several in by_game.items():
        if len(several) > 1:
            yield f"I2: game {game_id} lives in {len(several)} containers: {', '.join(several)}"


def _recorded(seen: Snapshot) -> Iterator[str]:
    for each in seen.alive():
        record = seen.records.get(game_of(each))
        if record is None:
            yield f"I3: container {named(each)} lives, its game has no record"
        elif (record["status"], record["current_container_id"]) != ("running", each["Id"]):
            yield f"I3: container {named(each)} lives, its game is recorded as {_recorded_as(record)}"


def _running(seen: Snapshot) -> Iterator[str]:
    alive = {each["Id"] for each in seen.alive()}
    for game_id, record in seen.records.items():
        if record["status"] == "running" and record["current_container_id"] not in alive:
            yield f"I4: game {game_id} is recorded as {_recorded_as(record)}, and that container does not live"


def _leftovers(seen: Snapshot) -> Iterator[str]:
    """Containers that were created and never started: the start failed, or another operation has replaced it."""
    for each in seen.containers:
        record = seen.records.get(game_of(each), {})
        if each["State"]["Status"] == "created" and record.get("current_container_id") != each["Id"]:
            yield f"I3: container {named(each)} was created, never started, and is recorded nowhere"


def _touched(bystander: Bystander, now: Row | None) -> Iterator[str]:
    if now is None:
        yield f"I6: container {short(bystander.container_id)}, which has no record, is gone"
    elif not is_alive(now) or now["State"]["StartedAt"] != bystander.started_at:
        since = f"started at {now['State']['StartedAt']}, before that at {bystander.started_at}"
        yield f"I6: container {named(now)}, which has no record, was touched: {since}"


def _recorded_as(record: Row) -> str:
    return f"{record['status']} in {short(record['current_container_id'])}"
