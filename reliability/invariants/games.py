"""The log is a possible history that ends at the record; I5: the state of each game still exists.

A spontaneous exit leaves no row in the log (docs/contract.md, "Health events"), so a running game may be stopped at any
later row. The check follows the set of states that the game can be in.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from reliability.invariants.snapshot import Row, Snapshot, short

States = frozenset[str]

#: The state of a game that has no record.
NONE = "none"
RUNNING, STOPPED, REMOVED = "running", "stopped", "removed"
_IDLE = frozenset({NONE, STOPPED, REMOVED})
_BEGUN = frozenset({RUNNING, STOPPED})

#: For a successful row: the required states of the game, and the states after it.
_SUCCESS: Mapping[str, tuple[States, States]] = {
    "start": (_IDLE, frozenset({RUNNING})),
    # The container may turn out to be gone.
    "stop": (frozenset({RUNNING}), frozenset({STOPPED, REMOVED})),
    "restart": (frozenset({RUNNING}), frozenset({RUNNING})),
    "patch": (frozenset({RUNNING}), frozenset({RUNNING})),
    "cleanup_container": (frozenset({STOPPED}), frozenset({REMOVED})),
    "reconcile_adopt": (_IDLE, frozenset({RUNNING})),
    "reconcile_dispose": (frozenset({RUNNING}), frozenset({REMOVED})),
}

#: The required states for a row of a no-op.
_REPLAY: Mapping[str, States] = {
    "start": frozenset({RUNNING}),
    "stop": frozenset({STOPPED, REMOVED}),
    "patch": frozenset({RUNNING}),
    "cleanup_container": frozenset({REMOVED}),
}

#: Operations with three rows, and the kinds of their parts.
_COMPOSED = ("restart", "patch")
_PARTS = ("stop", "start")

#: Sources that may repeat: the same container crashes, or is adopted, more than once.
_COME_AGAIN = ("reconcile:", "crash:")


def violations(seen: Snapshot) -> Iterator[str]:
    """The violations of the log, of the records that follow from it, and of the directories."""
    stories = seen.stories()
    for game_id, rows in stories.items():
        yield from _operations(game_id, rows)
        yield from _story(game_id, rows, seen.records.get(game_id))
    for game_id in sorted(seen.records.keys() - stories.keys()):
        yield f"log: game {game_id} has a record and no row in the operation log"
    yield from _state(seen, stories)


def _operations(game_id: str, rows: Sequence[Row]) -> Iterator[str]:
    """Each operation has one row of its own; a restart and a patch have their parts before it."""
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row["source_ref"], []).append(row)
    for source_ref, group in by_source.items():
        if not source_ref.startswith(_COME_AGAIN):
            yield from _operation(game_id, source_ref, group)


def _operation(game_id: str, source_ref: str, group: Sequence[Row]) -> Iterator[str]:
    kinds = tuple(row["op_kind"] for row in group)
    own = group[-1]
    if kinds[-1] not in _COMPOSED:
        whole = len(kinds) == 1
    elif own["outcome"] == "success" and own["error_code"] is None:
        whole = kinds[:-1] == _PARTS
    else:
        whole = kinds[:-1] == _PARTS[: len(kinds) - 1]
    if not whole:
        yield f"log: game {game_id}: operation {source_ref} left the rows {', '.join(kinds)}"


def _story(game_id: str, rows: Sequence[Row], record: Row | None) -> Iterator[str]:
    states, container = frozenset({NONE}), None
    for row in rows:
        after = _after(row, states)
        if not after:
            yield f"log: game {game_id} was {' or '.join(sorted(states))} when row {row['id']} says {_described(row)}"
            return
        states = after
        if runs_since(row):
            container = row["container_id"]
    ended = record["status"] if record else NONE
    if ended not in _with_ends(states):
        yield f"log: game {game_id} is recorded as {ended}, by its log it is {' or '.join(sorted(states))}"
    elif record and ended == RUNNING and record["current_container_id"] != container:
        recorded = short(record["current_container_id"])
        yield f"log: game {game_id} is recorded in container {recorded}, by its log it runs in {short(container)}"


def runs_since(row: Row) -> bool:
    """Whether the row starts or adopts the container in which the game runs."""
    begun = row["op_kind"] in ("start", "reconcile_adopt")
    return begun and row["outcome"] == "success" and row["error_code"] is None


def _after(row: Row, states: States) -> States:
    """The possible states of the game after the row; empty when the row is impossible."""
    states, kind = _with_ends(states), row["op_kind"]
    if row["outcome"] == "failure":
        return _FAILED.get(kind, _unchanged)(row, states)
    if row["error_code"] is None:
        needed, after = _SUCCESS[kind]
        return after if states & needed else frozenset()
    return states & _REPLAY.get(kind, frozenset())


def _unchanged(_row: Row, states: States) -> States:
    return states


def _failed_stop(row: Row, states: States) -> States:
    return frozenset({NONE}) & states if row["error_code"] == "not_found" else states


def _failed_launch(_row: Row, states: States) -> States:
    """A failed start within a restart leaves a stopped game."""
    return states | {STOPPED} if states & _BEGUN else states


_FAILED: Mapping[str, Callable[[Row, States], States]] = {
    "stop": _failed_stop,
    "cleanup_container": _failed_stop,
    "start": _failed_launch,
    "restart": _failed_launch,
    "patch": _failed_launch,
}


def _with_ends(states: States) -> States:
    return states | {STOPPED} if RUNNING in states else states


def _described(row: Row) -> str:
    code = f" ({row['error_code']})" if row["error_code"] else ""
    return f"{row['op_kind']} by {row['source_ref']}: {row['outcome']}{code}"


def _state(seen: Snapshot, stories: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for game_id, rows in stories.items():
        ran = any(row["op_kind"] == "start" and runs_since(row) for row in rows)
        if ran and game_id not in seen.directories:
            yield f"I5: game {game_id} has run and has no directory"
    for path, (written, now) in seen.markers.items():
        if now is None:
            yield f"I5: {path}, which was written into a game's directory, is gone"
        elif now != written:
            yield f"I5: {path} holds {now!r}, {written!r} was written"


def starts(rows: Sequence[Row]) -> Counter[str]:
    """How often `container_started` must have been published for each container of a game.

    A start is always published, an adoption only when the game was known before.
    """
    published: Counter[str] = Counter()
    known = False
    for row in filter(runs_since, rows):
        if known or row["op_kind"] == "start":
            published[row["container_id"]] += 1
        known = True
    return published
