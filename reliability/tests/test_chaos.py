"""The parts of a chaos run that need no server: its plan, the watcher's arithmetic, the check of answers."""

import json
import tempfile
import threading
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

from reliability.chaos import report
from reliability.chaos.checker import binds
from reliability.chaos.history import History
from reliability.chaos.nemesis import ACTS
from reliability.chaos.plan import AT_ONCE, DEPENDENCIES, LAST_S, LINES, MOST_AT_ONCE, Fault, Round, Size, plan
from reliability.chaos.run import Report, as_json
from reliability.chaos.watcher import TOLERANCE_NS, Lives
from reliability.upgrade import FAULTS, PHASES, restarted

SIZE = Size(own_daemon=True)
SECONDS = 45.0


def faults(rounds: int = 60, size: Size = SIZE) -> list[list[Fault]]:
    return [list(plan(4711, number, SECONDS, size).faults) for number in range(rounds)]


class PlanTest(unittest.TestCase):
    def test_it_is_a_function_of_the_seed(self) -> None:
        def again() -> Round:
            return plan(1, 2, SECONDS, SIZE)

        self.assertEqual(again(), again())
        self.assertNotEqual(plan(1, 3, SECONDS, SIZE), again())
        self.assertNotEqual(plan(2, 2, SECONDS, SIZE), again())

    def test_every_kind_of_fault_comes_in_every_way(self) -> None:
        every = [fault for each in faults() for fault in each]
        self.assertEqual({fault.kind for fault in every}, set(ACTS))
        lines = {(fault.target, fault.how) for fault in every if fault.kind == "line"}
        self.assertEqual(lines, {(target, how) for target in DEPENDENCIES for how in LINES})
        self.assertEqual({fault.instance for fault in every if fault.kind == "line"}, {"0", "1", "2", "all"})

    def test_only_the_chosen_kinds_of_fault_come(self) -> None:
        every = [fault for each in faults(size=Size(kinds=FAULTS)) for fault in each]
        self.assertEqual({fault.kind for fault in every}, set(FAULTS))

    def test_the_machine_s_own_daemon_is_left_alone(self) -> None:
        kinds = {fault.kind for each in faults(size=Size()) for fault in each}
        self.assertEqual({kind for kind in ACTS if not kind.startswith("daemon")}, kinds)

    def test_faults_come_in_order_and_early_enough_to_meet_something(self) -> None:
        for each in faults():
            self.assertEqual(each, sorted(each, key=lambda fault: fault.at_s))
            self.assertLess(max(fault.at_s for fault in each), SECONDS - LAST_S)

    def test_only_so_many_last_at_once_and_no_two_do_something_to_the_same(self) -> None:
        overlaps = 0
        for each in faults():
            for index, fault in enumerate(each):
                before = [other for other in each[:index] if other.at_s + other.lasts_s > fault.at_s]
                overlaps += len(before)
                self.assertFalse(any(other.holds & fault.needs for other in before), (fault, before))
                if fault.lasts_s:
                    self.assertLess(sum(other.lasts_s > 0 for other in before), MOST_AT_ONCE)
        self.assertGreater(overlaps, 50)

    def test_nothing_is_done_to_containers_while_their_daemon_is_away_and_the_other_way_round(self) -> None:
        away, paused = Fault(0, 5, "daemon killed", "docker"), Fault(0, 5, "container paused", "game 1")
        for kind in ("container killed", "stranger", "container paused"):
            self.assertTrue(Fault(1, 0, kind, "game 2").needs & away.holds)
        self.assertTrue(away.needs & paused.holds)
        self.assertFalse(Fault(1, 0, "container killed", "game 2").needs & paused.holds)

    def test_what_is_over_at_once_does_not_last(self) -> None:
        for fault in (fault for each in faults() for fault in each if fault.how in AT_ONCE):
            self.assertEqual(fault.lasts_s, 0)

    def test_scripts_fill_the_round(self) -> None:
        found = plan(1, 0, SECONDS, SIZE)
        for script in (*found.jobs, *found.calls):
            self.assertLess(sum(step.pause_s for step in script), SECONDS)
            self.assertGreater(len(script), 5)


class LivesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.lives = Lives()

    def ended(self, container_id: str, at: int, game: str = "g") -> list[str]:
        return list(self.lives.ended(game, container_id, at))

    def test_one_after_the_other_is_well(self) -> None:
        self.lives.started("g", "one", 0)
        self.assertEqual(self.ended("one", 10), [])
        self.lives.started("g", "two", 20)
        self.assertEqual(self.ended("two", TOLERANCE_NS * 9), [])

    def test_two_at_once_are_found_when_the_first_ends(self) -> None:
        self.lives.started("g", "one", 0)
        self.lives.started("g", "two", 10)
        [found] = self.ended("one", 11 + TOLERANCE_NS)
        self.assertTrue(found.startswith("I2: game g had two engines: two started 0.20 s before the end of one"), found)

    def test_an_end_that_is_published_a_little_late_is_well(self) -> None:
        self.lives.started("g", "one", 0)
        self.lives.started("g", "two", 10)
        self.assertEqual(self.ended("one", 10 + TOLERANCE_NS), [])

    def test_other_games_and_the_same_container_again_are_well(self) -> None:
        self.lives.started("g", "one", 0)
        self.lives.started("h", "two", 0)
        self.lives.started("g", "one", 5)
        self.assertEqual(self.ended("one", TOLERANCE_NS * 2) + self.ended("two", TOLERANCE_NS * 2, "h"), [])


class AnswerTest(unittest.TestCase):
    """Which answer fits which row of the log."""

    def fits(self, outcome: str, row: tuple[str, str | None] | None, **about: Any) -> bool:
        deed = {"outcome": outcome, "what": "start", "game": "g", "request": "r", **about}
        logged = {"outcome": row[0], "error_code": row[1]} if row else None
        return not list(binds(deed, logged))

    def test_a_success_has_its_row(self) -> None:
        self.assertTrue(self.fits("ok", ("success", None)))
        self.assertTrue(self.fits("ok", ("success", "replay_no_op")))
        self.assertFalse(self.fits("ok", ("failure", "conflict")))
        self.assertFalse(self.fits("ok", None))

    def test_a_refusal_says_what_the_log_has_or_was_never_an_operation(self) -> None:
        self.assertTrue(self.fits("refused", ("failure", "image_pull_failed"), code="image_pull_failed"))
        self.assertTrue(self.fits("refused", None, code="conflict"))
        self.assertFalse(self.fits("refused", None, code="image_pull_failed"))
        self.assertFalse(self.fits("refused", ("success", None), code="conflict"))

    def test_an_operation_that_goes_on_ends_and_one_that_does_not_is_not_done(self) -> None:
        goes_on, away = {"message": "operation 7 goes on by itself"}, {"message": "postgres does not answer"}
        doubt = {"message": "whether it was accepted is not known, and if it was, it goes on by itself"}
        self.assertTrue(self.fits("unavailable", ("success", None), **doubt))
        self.assertTrue(self.fits("unavailable", None, **doubt))
        self.assertTrue(self.fits("unavailable", ("success", None), **goes_on))
        self.assertFalse(self.fits("unavailable", None, **goes_on))
        self.assertFalse(self.fits("unavailable", ("failure", "service_unavailable"), **goes_on))
        self.assertTrue(self.fits("unavailable", None, **away))
        self.assertTrue(self.fits("unavailable", ("failure", "service_unavailable"), **away))
        self.assertFalse(self.fits("unavailable", ("success", None), **away))

    def test_what_is_done_and_cannot_be_shown_is_done(self) -> None:
        done = {"message": "the stop of game g succeeded, but its record cannot be read now: postgres does not answer"}
        self.assertTrue(self.fits("unavailable", ("success", None), **done))
        self.assertFalse(self.fits("unavailable", None, **done))
        self.assertFalse(self.fits("unavailable", ("failure", "service_unavailable"), **done))

    def test_who_got_no_answer_knows_nothing_unless_nobody_was_there(self) -> None:
        self.assertTrue(self.fits("unknown", ("success", None)))
        self.assertTrue(self.fits("unknown", None))
        self.assertFalse(self.fits("nobody there", ("success", None)))


class ReportTest(unittest.TestCase):
    def test_it_counts_what_was_done_and_names_what_was_found(self) -> None:
        deeds = Counter(
            {
                "nemesis: line: ok": 3,
                "nemesis: line: missed": 1,
                "nemesis: line, over: ok": 3,
                "lobby: start job: ok": 5,
                "caller: stop: refused": 2,
            }
        )
        found = Report(
            7, 60.0, True, rounds=1, jobs=5, deeds=deeds, recoveries_s=[2.0], problems=["I2: two"], kept="/x"
        )
        table = report.table(found)
        for text in ("seed 7", "faults 3: line 3", "clients 7: calls refused 2, jobs ok 5", "VIOLATION I2: two", "/x"):
            self.assertIn(text, table)
        self.assertEqual(json.loads(json.dumps(as_json(found)))["deeds"], deeds)


class HistoryTest(unittest.TestCase):
    def test_a_deed_is_written_before_it_is_done_and_again_with_its_outcome(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            history = History(Path(folder) / "history.jsonl")
            with history.deed("caller 3", "start", game="g") as known:
                [begun] = self.lines(history)
                known["outcome"] = "ok"
            with self.assertRaises(ValueError), history.deed("caller 3", "stop"):
                raise ValueError
            history.close()
            lines = self.lines(history)
        self.assertEqual((begun["step"], begun["game"]), ("begins", "g"))
        self.assertEqual(
            [(each["step"], each.get("outcome")) for each in lines][1::2], [("ends", "ok"), ("ends", "unknown")]
        )
        self.assertEqual(lines[0]["deed"], lines[1]["deed"])
        self.assertEqual(history.counted, {"caller: start: ok": 1, "caller: stop: unknown": 1})

    def test_deeds_of_many_threads_keep_their_lines_whole(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            history = History(Path(folder) / "history.jsonl")
            threads = [threading.Thread(target=lambda: history.note("one", "x" * 5000)) for _ in range(20)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            history.close()
            self.assertEqual(len(self.lines(history)), 20)

    def lines(self, history: History) -> list[dict[str, Any]]:
        return [json.loads(line) for line in history.path.read_text().splitlines()]


class UpgradeTest(unittest.TestCase):
    def test_the_releases_come_in_turn_and_side_by_side(self) -> None:
        self.assertEqual(PHASES[:3], ("bbb", "aaa", "bbb"))
        self.assertTrue(any(len(set(phase)) == 2 for phase in PHASES))

    def test_a_container_that_ended_or_started_during_an_exchange_is_a_violation(self) -> None:
        before = {"same": "10:00", "ended": "10:00", "restarted": "10:00"}
        found = list(restarted(before, {"same": "10:00", "restarted": "10:05", "new": "10:05"}))
        self.assertEqual(len(found), 2)
        self.assertTrue(all("did not run on" in each for each in found), found)


if __name__ == "__main__":
    unittest.main()
