"""I1: each accepted job gets exactly one result, in the order of the jobs.

Each job has one row in the operation log; the results of a game are those rows, in order. A job without a game has
neither, and one dead letter instead.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from reliability.invariants.snapshot import Job, Row, Snapshot


def violations(seen: Snapshot, jobs: Sequence[Job]) -> Iterator[str]:
    """The violations about results, log rows and dead letters."""
    answered = [job for job in jobs if job.game_id is not None]
    lobby = [row for row in seen.log if row["op_source"] == "lobby_stream"]
    yield from _rows_of_jobs(answered, lobby)
    yield from _dead_letters(seen, [job for job in jobs if job.game_id is None])
    published = _by_game(seen.results)
    logged = _by_game(lobby)
    for game_id in sorted(published.keys() | logged.keys()):
        yield from _results(game_id, published.get(game_id, []), logged.get(game_id, []))
        yield from _order(game_id, [row["source_ref"] for row in logged.get(game_id, [])], answered)


def _rows_of_jobs(jobs: Sequence[Job], lobby: Sequence[Row]) -> Iterator[str]:
    rows = Counter((row["game_id"], row["source_ref"]) for row in lobby)
    for job in jobs:
        count = rows.pop((str(job.game_id), job.source_ref), 0)
        if count != 1:
            yield f"I1: job {job.source_ref} of game {job.game_id} has {count} rows in the operation log"
    for (game_id, source_ref), count in rows.items():
        yield f"I1: the log has {count} rows of job {source_ref} of game {game_id}, which nobody added"


def _dead_letters(seen: Snapshot, jobs: Sequence[Job]) -> Iterator[str]:
    letters = Counter(f"{row['stream']}:{row['entry_id']}" for row in seen.dead_letters)
    for job in jobs:
        count = letters.pop(job.source_ref, 0)
        if count != 1:
            yield f"I1: entry {job.source_ref} names no game and has {count} dead letters"
    for source_ref, count in letters.items():
        yield f"I1: {count} dead letters for {source_ref}, which is no entry without a game"


def _results(game_id: str, published: Sequence[Row], logged: Sequence[Row]) -> Iterator[str]:
    for index in range(max(len(published), len(logged))):
        if index >= len(logged):
            yield (
                f"I1: game {game_id} has {len(published)} results of {len(logged)} jobs; "
                f"one too many is {published[index]}"
            )
            return
        if index >= len(published):
            yield f"I1: job {logged[index]['source_ref']} of game {game_id} has no result"
        elif _of_result(published[index]) != _of_row(logged[index]):
            yield (
                f"I1: result {index} of game {game_id} is {_of_result(published[index])}, "
                f"the log says {_of_row(logged[index])} for {logged[index]['source_ref']}"
            )
            return


def _of_result(result: Row) -> tuple[str, str]:
    return result["outcome"], result["error_code"]


def _of_row(row: Row) -> tuple[str, str]:
    return row["outcome"], row["error_code"] or ""


def _order(game_id: str, done: Sequence[str], jobs: Sequence[Job]) -> Iterator[str]:
    positions = {job.source_ref: job.position for job in jobs}
    known = [each for each in done if each in positions]
    for before, after in pairwise(known):
        if positions[before] > positions[after]:
            yield f"I1: game {game_id}: {before} was done before {after}, which came earlier"


def _by_game(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["game_id"], []).append(row)
    return found
