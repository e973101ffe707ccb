"""The invariant checker reports each kind of violation, and nothing on a correct platform; see reliability/invariants.

A platform with three games consists of plain values, and is broken in one place at a time.
"""

import unittest
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reliability.invariants import Bystander, Job, Snapshot, judge

ONE, TWO, THREE, OLD, GONE = (letter * 64 for letter in "abcde")
STRANGER, MARKER = Bystander("f" * 64, "at noon"), Path("/games/plain/mark")

#: The jobs: a game that is started, stopped and started again; one with a malformed job; an entry without a game.
JOBS = [
    Job("runtime:start_jobs", "1-0", "plain"),
    Job("runtime:stop_jobs", "2-0", "plain"),
    Job("runtime:start_jobs", "2-1", "plain"),
    Job("runtime:start_jobs", "3-0", "wrong"),
    Job("runtime:stop_jobs", "4-0", None),
]


def row(game_id: str, kind: str, source_ref: str, container_id: str | None = None, code: str = "") -> dict[str, Any]:
    """A row of the operation log; a code is a failure, unless it is that of a replay."""
    source = {"runtime": "lobby_stream", "rest": "gm_rest"}.get(source_ref.partition(":")[0], "auto_reconcile")
    return {
        "id": 0,
        "game_id": game_id,
        "op_kind": kind,
        "op_source": source,
        "source_ref": source_ref,
        "container_id": container_id,
        "outcome": "failure" if code not in ("", "replay_no_op") else "success",
        "error_code": code or None,
    }


def result(game_id: str, outcome: str = "success", code: str = "") -> dict[str, str]:
    return {"game_id": game_id, "outcome": outcome, "error_code": code}


def event(kind: str, container_id: str) -> dict[str, str]:
    return {"event_type": kind, "container_id": container_id}


def container(game_id: str, container_id: str, status: str = "running", since: str = "at noon") -> dict[str, Any]:
    return {
        "Id": container_id,
        "Name": f"/galaxy-game-{game_id}",
        "Config": {"Labels": {"com.galaxy.game_id": game_id}},
        "State": {"Status": status, "Running": status in ("running", "paused"), "StartedAt": since},
    }


def record(status: str, container_id: str | None) -> dict[str, Any]:
    return {"status": status, "current_container_id": container_id}


def intent(code: str, game_id: str, source_ref: str) -> dict[str, str]:
    return {"idempotency_key": f"runtime_manager:runtime.{code}:{game_id}:{source_ref}"}


LOG = [
    row("plain", "start", "runtime:start_jobs:1-0", OLD),
    row("plain", "stop", "runtime:stop_jobs:2-0", OLD),
    row("plain", "start", "runtime:start_jobs:2-1", ONE),
    row("wrong", "start", "runtime:start_jobs:3-0", code="start_config_invalid"),
    row("busy", "start", "rest:1", GONE),
    row("busy", "reconcile_dispose", "reconcile:e", GONE),
    row("busy", "start", "rest:2", THREE),
    row("busy", "stop", "rest:3", THREE),
    row("busy", "start", "rest:3", TWO),
    row("busy", "restart", "rest:3", TWO),
    row("busy", "start", "rest:4", TWO, "replay_no_op"),
]

WELL = Snapshot(
    records={"plain": record("running", ONE), "busy": record("running", TWO)},
    log=LOG,
    snapshots={
        "plain": {"status": "healthy", "container_id": ONE},
        "busy": {"status": "probe_failed", "container_id": TWO},
    },
    results=[result("plain")] * 3 + [result("wrong", "failure", "start_config_invalid")],
    health=[event("container_started", each) for each in (OLD, ONE, GONE, THREE, TWO)]
    + [event("container_disappeared", GONE)],
    intents=[intent("start_config_invalid", "wrong", "runtime:start_jobs:3-0")],
    dead_letters=[{"stream": "runtime:stop_jobs", "entry_id": "4-0"}],
    containers=[container("plain", ONE), container("busy", TWO, "paused"), container("plain", OLD, "exited")],
    bystanders=[(STRANGER, container("plain", STRANGER.container_id))],
    directories={"plain", "busy"},
    markers={MARKER: ("kept", "kept")},
)


def without(rows: Any, index: int) -> list[Any]:
    return [*rows[:index], *rows[index + 1 :]]


def broken() -> Iterator[tuple[str, str, Snapshot]]:
    """The defect, the beginning of the first complaint, and the platform."""
    yield "a job without a row", "I1: job runtime:start_jobs:1-0", replace(WELL, log=LOG[1:])
    yield "a job done twice", "I1: job runtime:start_jobs:3-0", replace(WELL, log=[*LOG, LOG[3]])
    stray = row("wrong", "stop", "runtime:stop_jobs:9-0", code="not_found")
    yield "a row of no job", "I1: the log has 1 rows of job", replace(WELL, log=[*LOG, stray])
    yield "a job without a result", "I1: job runtime:start_jobs:2-1", replace(WELL, results=without(WELL.results, 0))
    yield "a result too many", "I1: game plain has 4", replace(WELL, results=[result("plain"), *WELL.results])
    other = [*WELL.results[:3], result("wrong")]
    yield "a result that says something else", "I1: result 0 of game wrong", replace(WELL, results=other)
    swapped = [*LOG[:1], LOG[2], LOG[1], *LOG[3:]]
    yield "jobs out of order", "I1: game plain: runtime:start_jobs:2-1 was done before", replace(WELL, log=swapped)
    yield "an entry that vanished", "I1: entry runtime:stop_jobs:4-0", replace(WELL, dead_letters=[])
    letters = [*WELL.dead_letters, {"stream": "runtime:start_jobs", "entry_id": "1-0"}]
    yield "a dead letter of a good entry", "I1: 1 dead letters for runtime:start", replace(WELL, dead_letters=letters)
    yield from broken_containers()
    yield from broken_stories()
    yield from broken_messages()


def broken_containers() -> Iterator[tuple[str, str, Snapshot]]:
    second = container("plain", OLD)
    yield "a second engine", "I2: game plain lives in 2", replace(WELL, containers=[*WELL.containers, second])
    nobody = container("new", GONE)
    yield "no record", "I3: container eeeeeeeeeeee", replace(WELL, containers=[*WELL.containers, nobody])
    records = {**WELL.records, "plain": record("stopped", ONE)}
    yield "alive though stopped", "I3: container aaaaaaaaaaaa", replace(WELL, records=records)
    created = container("plain", GONE, "created")
    yield "created for nothing", "I3: container eeeeeeeeeeee", replace(WELL, containers=[*WELL.containers, created])
    yield "no container", "I4: game plain", replace(WELL, containers=WELL.containers[1:])
    dead = [container("plain", ONE, "exited"), *WELL.containers[1:]]
    yield "a dead container", "I4: game plain", replace(WELL, containers=dead)
    stranger = container("plain", STRANGER.container_id, "exited")
    yield "a stranger stopped", "I6: container ffffffffffff", replace(WELL, bystanders=[(STRANGER, stranger)])
    again = container("plain", STRANGER.container_id, since="at one")
    yield "a stranger restarted", "I6: container ffffffffffff", replace(WELL, bystanders=[(STRANGER, again)])
    yield "a stranger gone", "I6: container ffffffffffff", replace(WELL, bystanders=[(STRANGER, None)])


def broken_stories() -> Iterator[tuple[str, str, Snapshot]]:
    yield "no directory", "I5: game plain has run", replace(WELL, directories={"busy"})
    yield "no marker", f"I5: {MARKER}", replace(WELL, markers={MARKER: ("kept", None)})
    yield "another marker", f"I5: {MARKER}", replace(WELL, markers={MARKER: ("kept", "lost")})
    yield "a row that cannot have followed", "log: game busy was", replace(WELL, log=[*LOG, *[LOG[5]] * 2])
    yield "two rows of one call", "log: game busy: operation rest:4", replace(WELL, log=[*LOG, LOG[-1]])
    yield "a restart without its stop", "log: game busy: operation rest:3", replace(WELL, log=without(LOG, 7))
    records = {**WELL.records, "plain": record("removed", None)}
    yield "a record that no row explains", "log: game plain is recorded as removed", replace(WELL, records=records)
    records = {**WELL.records, "plain": record("running", OLD)}
    yield "another container than the log's", "log: game plain is recorded in", replace(WELL, records=records)
    yield "a record without a story", "log: game busy has a record and no row", replace(WELL, log=LOG[:4])
    elsewhere = [*LOG, row("busy", "start", "rest:5", ONE)]
    yield "a container that the log left", "log: game busy is recorded in", replace(WELL, log=elsewhere)


def broken_messages() -> Iterator[tuple[str, str, Snapshot]]:
    yield "no intent", "intents: runtime_manager", replace(WELL, intents=[])
    yield "two mails", "intents: runtime_manager", replace(WELL, intents=[*WELL.intents] * 2)
    more = [*WELL.intents, intent("image_pull_failed", "plain", "runtime:start_jobs:1-0")]
    yield "a mail about nothing", "intents: runtime_manager", replace(WELL, intents=more)
    yield "a start unpublished", "health: container_started was published", replace(WELL, health=WELL.health[1:])
    again = [*WELL.health, event("container_started", ONE)]
    yield "a start published twice", "health: container_started was published", replace(WELL, health=again)
    yield "no snapshot", "health: game busy", replace(WELL, snapshots={"plain": WELL.snapshots["plain"]})
    for snapshot in ({"status": "healthy", "container_id": OLD}, {"status": "exited", "container_id": ONE}):
        snapshots = {**WELL.snapshots, "plain": snapshot}
        yield "a snapshot of something else", "health: game plain runs in", replace(WELL, snapshots=snapshots)
    snapshots = {**WELL.snapshots, "wrong": {"status": "healthy", "container_id": OLD}}
    yield "a snapshot of no game", "health: game wrong has a snapshot", replace(WELL, snapshots=snapshots)
    published = [*WELL.health, event("container_exited", ONE)]
    yield "an end that was none", "I7: container_exited", replace(WELL, health=published)


class JudgeTest(unittest.TestCase):
    def test_it_has_nothing_to_report_where_all_is_well(self) -> None:
        self.assertEqual(judge(WELL, JOBS, deaths={GONE}), [])

    def test_it_reports_each_kind_of_violation(self) -> None:
        for what, begins, seen in broken():
            with self.subTest(what):
                found = judge(seen, JOBS, deaths={GONE})
                self.assertTrue(any(each.startswith(begins) for each in found), found)

    def test_it_reports_a_container_that_was_disposed_of_alive(self) -> None:
        found = judge(WELL, JOBS, deaths=set())
        self.assertEqual([each[:2] for each in found], ["I7", "I7"], found)

    def test_it_reports_nothing_of_ends_when_nobody_kept_a_list(self) -> None:
        self.assertEqual(judge(WELL, JOBS), [])


class StoryTest(unittest.TestCase):
    """Which rows may follow which."""

    def complaints(self, *rows: dict[str, Any], then: str | None) -> list[str]:
        records = {"g": record(then, ONE)} if then else {}
        seen = Snapshot(log=rows, records=records)
        return [each for each in judge(seen, []) if each.startswith("log")]

    def test_a_game_may_end_by_itself_without_a_row(self) -> None:
        rows = [row("g", "start", "rest:1", ONE), row("g", "stop", "rest:2", ONE, "replay_no_op")]
        self.assertEqual(self.complaints(*rows, then="stopped"), [])

    def test_a_failed_restart_leaves_a_stopped_game_and_the_rows_of_its_parts(self) -> None:
        started = row("g", "start", "rest:1", ONE)
        parts = row("g", "stop", "rest:2", ONE), row("g", "start", "rest:2", code="container_start_failed")
        failed = row("g", "restart", "rest:2", code="container_start_failed")
        self.assertEqual(self.complaints(started, *parts, failed, then="stopped"), [])
        self.assertEqual(len(self.complaints(started, *reversed(parts), failed, then="stopped")), 1)

    def test_a_failed_start_changes_nothing(self) -> None:
        self.assertEqual(self.complaints(row("g", "start", "rest:1", code="image_pull_failed"), then=None), [])

    def test_what_cannot_have_happened(self) -> None:
        started, stopped = row("g", "start", "rest:1", ONE), row("g", "stop", "rest:2", ONE)
        for rows in (
            [stopped],
            [started, stopped, row("g", "stop", "rest:3", ONE)],
            [row("g", "start", "rest:3", ONE, "replay_no_op")],
            [row("g", "patch", "rest:4", ONE, "replay_no_op")],
            [started, row("g", "stop", "rest:4", code="not_found")],
            [started, row("g", "cleanup_container", "rest:4", ONE), row("g", "cleanup_container", "rest:5", ONE)],
            [row("g", "reconcile_dispose", "reconcile:a", ONE)],
        ):
            with self.subTest([each["op_kind"] for each in rows]):
                self.assertEqual(len(self.complaints(*rows, then=None)), 1)


if __name__ == "__main__":
    unittest.main()
