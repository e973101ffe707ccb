"""Seeded histories: a short form of `make simulate`, and the reproduction of a history."""

from __future__ import annotations

import unittest
from contextlib import AbstractContextManager
from unittest import mock

from reliability.simulate import count
from reliability.simulation import Violation, run
from rtmanager.operations.one_daemon import GuardedRuntime
from rtmanager.workers.reconcile import game as game_module

HISTORIES = 150
#: What an unconfirmed answer of another daemon leads to: a game there, or games that are missing only there.
ABOUT_ANOTHER_DAEMON = "live on another one|was published as disappeared"


class Histories(unittest.TestCase):
    def test_no_history_violates_an_invariant(self) -> None:
        totals = count(HISTORIES)
        self.assertGreater(min(totals.values()), 0, totals)

    def test_a_seed_gives_the_same_history_again(self) -> None:
        self.assertEqual(run(7).trace, run(7).trace)

    def test_a_daemon_that_is_not_confirmed_is_noticed(self) -> None:
        self.assert_noticed(mock.patch.object(GuardedRuntime, "confirm"), ABOUT_ANOTHER_DAEMON)

    def test_a_game_that_does_not_come_back_after_an_outage_is_noticed(self) -> None:
        self.assert_noticed(mock.patch.object(game_module, "OUTAGES", frozenset()), "outage: g. ran in .* is not back")

    def assert_noticed(self, taken_out: AbstractContextManager[object], violation: str) -> None:
        with taken_out, self.assertRaisesRegex(Violation, violation) as caught:
            count(1000)
        self.assertRegex(caught.exception.__notes__[0], r"seed \d+$")
