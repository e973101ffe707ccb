"""A comparison runs every side in every round, and rotates the side that runs first."""

import unittest
from collections import Counter

from bench.comparison import WHOLE, Contest, Side, hold, rotated, timed


def noting(name: str, done: list[str], seconds: float = 1.0) -> Side:
    def run() -> dict[str, float]:
        done.append(name)
        return {WHOLE: seconds}

    return Side(name, run)


class ContestTest(unittest.TestCase):
    def setUp(self) -> None:
        self.done: list[str] = []
        names = ("ours", "theirs", "floor")
        self.sides = [noting(name, self.done, seconds) for seconds, name in enumerate(names, 1)]

    def contest(self) -> Contest:
        return Contest("starting", self.sides[0], self.sides[1:])

    def test_every_side_runs_once_a_round_and_the_first_round_is_not_counted(self) -> None:
        samples = hold(self.contest(), rounds=3)

        self.assertEqual(Counter(self.done), {"ours": 4, "theirs": 4, "floor": 4})
        self.assertEqual({name: len(taken) for name, taken in samples.items()}, {"ours": 3, "theirs": 3, "floor": 3})
        self.assertEqual(samples["theirs"], [{WHOLE: 2}] * 3)

    def test_in_as_many_rounds_as_there_are_sides_each_is_first_once(self) -> None:
        orders = [rotated(self.sides, number) for number in range(3)]

        self.assertEqual([order[0].name for order in orders], ["ours", "theirs", "floor"])
        self.assertEqual(
            {frozenset(side.name for side in order) for order in orders}, {frozenset(["ours", "theirs", "floor"])}
        )

    def test_what_is_needed_before_a_run_is_done_before_each_and_not_timed(self) -> None:
        contest = Contest("emptying", self.sides[0], self.sides[1:], before=lambda: self.done.append("fill"))

        hold(contest, rounds=0)

        self.assertEqual(self.done, ["fill", "ours", "fill", "theirs", "fill", "floor"])

    def test_a_contest_has_its_own_number_of_rounds_unless_another_is_requested(self) -> None:
        contest = Contest("exits", self.sides[0], self.sides[1:], rounds=2)

        for requested, held in ((None, 2), (3, 3)):
            self.assertEqual({len(taken) for taken in hold(contest, requested).values()}, {held})

    def test_a_side_that_is_one_call_takes_as_long_as_the_call(self) -> None:
        sample = timed(lambda: self.done.append("called"))()

        self.assertEqual(self.done, ["called"])
        self.assertEqual(list(sample), [WHOLE])
        self.assertGreater(sample[WHOLE], 0)
