"""Planned restarts: their names, the next try of a start after an outage, and which failures are notified."""

import unittest
from dataclasses import replace

from rtmanager.domain.findings import RestartCause
from rtmanager.domain.operation import QUEUED, OpKind, OpSource, Outcome, Request
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import Status
from rtmanager.domain.restarts import (
    OUTAGE_TRIES,
    NextTry,
    is_notified,
    keeps_plan,
    next_try,
    outage_pause_s,
    restart_request,
)
from rtmanager.tests.making import NOW, ended, record

DAY_S = 24 * 3600
CONTAINER = "0123456789abcdef"
FAILED = ended(Outcome.FAILURE)
STOPPED = record("g1", Status.STOPPED, current_container_id=CONTAINER)


def outage_start(tries: int = 0) -> Request:
    return restart_request("g1", CONTAINER, RestartCause.OUTAGE, tries)


class NextTries(unittest.TestCase):
    def test_each_failure_plans_the_next_try_until_the_last(self) -> None:
        for tries in range(OUTAGE_TRIES - 1):
            found = next_try(outage_start(tries), FAILED)
            self.assertEqual(found, NextTry(CONTAINER[:12], tries + 1, outage_pause_s(tries + 1)))
        self.assertIsNone(next_try(outage_start(OUTAGE_TRIES - 1), FAILED))

    def test_all_tries_together_take_about_a_day(self) -> None:
        self.assertAlmostEqual(sum(map(outage_pause_s, range(OUTAGE_TRIES))), DAY_S, delta=300)

    def test_pauses_double_up_to_five_minutes(self) -> None:
        self.assertEqual([outage_pause_s(tries) for tries in (0, 1, 2, 3, 6, 7, 999)], [0, 5, 10, 20, 160, 300, 300])

    def test_it_is_about_the_container_of_the_record_and_without_one_about_that_of_the_outage(self) -> None:
        removed = replace(STOPPED, current_container_id=None)
        for new, expected in ((None, CONTAINER), (removed, CONTAINER[:12])):
            found = next_try(outage_start(), replace(FAILED, seen=STOPPED, new=new))
            self.assertEqual(found, NextTry(expected, 1, 5.0))

    def test_only_a_failed_start_of_the_managers_own_after_an_outage_has_a_next_try(self) -> None:
        own = outage_start()
        self.assertIsNone(next_try(own, ended()))
        others = (
            restart_request("g1", CONTAINER, RestartCause.CRASH),
            restart_request("g1", CONTAINER, RestartCause.PROBE),
            replace(own, source=OpSource.LOBBY_STREAM),
            replace(own, kind=OpKind.STOP),
            replace(own, source_ref="outage"),
            replace(own, source_ref="outages:1-1"),
        )
        for other in others:
            self.assertIsNone(next_try(other, FAILED), other)
            self.assertTrue(is_notified(other))

    def test_only_a_refused_restart_or_patch_leaves_a_plan(self) -> None:
        own = restart_request("g1", CONTAINER, RestartCause.CRASH)
        did = (
            {"launched": "c"},
            {"last_exit": LastExit("c", 1, False, NOW)},
            {"new": record("g1")},
        )
        for kind in QUEUED:
            changed = replace(own, kind=kind)
            leaves = kind in (OpKind.RESTART, OpKind.PATCH)
            self.assertEqual(keeps_plan(changed, ended(Outcome.FAILURE, seen=STOPPED)), leaves, kind)
            self.assertFalse(keeps_plan(changed, ended(seen=STOPPED)))
            for changes in did:
                self.assertFalse(keeps_plan(changed, replace(FAILED, **changes)), changes)

    def test_of_the_failures_the_first_and_the_last_are_notified(self) -> None:
        notified = [tries for tries in range(OUTAGE_TRIES) if is_notified(outage_start(tries))]
        self.assertEqual(notified, [0, OUTAGE_TRIES - 1])
