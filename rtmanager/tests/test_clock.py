"""The store's clock between readings, and the warning about this host's clock."""

from __future__ import annotations

import ast
import logging
import unittest
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import rtmanager
from rtmanager.domain.clock import Reading, anchored
from rtmanager.domain.errors import Unavailable
from rtmanager.tests.making import NOW, LogCapture
from rtmanager.workers.clock import ClockWatch, SteadyClock, StoreClock

PACKAGE = Path(rtmanager.__file__).parent
#: The modules that may read this host's clock, and why.
HOST_CLOCK = {
    "ports/clock.py": "to be compared with the store's",
    "workers/status.py": "for a text that a person reads beside the log",
    "http/connection.py": "for the header Date",
}
#: Names of functions that read a clock.
READS = {"now", "utcnow", "today", "time", "time_ns", "localtime", "gmtime"}
OF = {"datetime", "date", "time"}


def host_clock_reads(path: Path) -> Iterator[int]:
    """The lines of a module that read this host's clock."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READS:
            base = node.func.value
            name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
            if name in OF:
                yield node.lineno
        imported = {each.name for each in node.names} if isinstance(node, ast.ImportFrom) else set()
        if isinstance(node, ast.ImportFrom) and node.module == "time" and READS & imported:
            yield node.lineno


class Hosts:
    """A host whose clock is off, and a store; the test advances the time of both."""

    def __init__(self, *, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s
        self.running_s = 1000.0
        self.store_at = NOW
        self.takes_s = 0.0
        self.away = False
        self.clock = StoreClock(self.read_store, lambda: self.running_s)

    def read_store(self) -> datetime:
        """The store's time, half way through the query."""
        if self.away:
            raise Unavailable("postgres", "away")
        self.advance(self.takes_s / 2)
        store_at = self.store_at
        self.advance(self.takes_s / 2)
        return store_at

    def advance(self, seconds: float) -> None:
        self.running_s += seconds
        self.store_at += timedelta(seconds=seconds)

    def host(self) -> datetime:
        return self.store_at + timedelta(seconds=self.offset_s)

    @property
    def error_s(self) -> float:
        """The error of the kept clock, in seconds."""
        return (self.clock() - self.store_at).total_seconds()


class HostClockTest(unittest.TestCase):
    def test_nothing_else_reads_this_hosts_clock(self) -> None:
        found = {}
        for path in PACKAGE.rglob("*.py"):
            place = path.relative_to(PACKAGE).as_posix()
            if place.startswith(("tests/", "fakes/")):
                continue
            if lines := list(host_clock_reads(path)):
                found[place] = lines
        self.assertEqual(found.keys(), HOST_CLOCK.keys(), found)


class StoreClockTest(unittest.TestCase):
    def test_before_the_first_reading_it_has_no_time(self) -> None:
        with self.assertRaises(RuntimeError):
            Hosts().clock()

    def test_it_goes_on_by_the_running_time_also_while_the_store_is_away(self) -> None:
        hosts = Hosts(offset_s=40 * 86400)
        hosts.clock.read()
        hosts.away = True
        for _ in range(3):
            hosts.advance(3600)
            with self.assertRaises(Unavailable):
                hosts.clock.read()
            self.assertAlmostEqual(hosts.error_s, 0)
        self.assertEqual(hosts.clock().tzinfo, UTC)

    def test_an_answer_that_takes_long_moves_a_clock_that_agrees_with_it_nowhere(self) -> None:
        hosts = Hosts()
        hosts.clock.read()
        for takes_s in (4.0, 0.001, 9.0):
            hosts.takes_s = takes_s
            hosts.clock.read()
            self.assertAlmostEqual(hosts.error_s, 0)

    def test_its_error_stays_below_the_time_of_the_fastest_answer(self) -> None:
        for seed in range(200):
            random = Random(seed)
            hosts, best_s, last = Hosts(), 1e9, datetime.min.replace(tzinfo=UTC)
            for _ in range(20):
                there_s, back_s = random.expovariate(10), random.expovariate(10)
                best_s = min(best_s, there_s + back_s)
                requested_s = hosts.running_s
                hosts.advance(there_s)
                store_at = hosts.store_at
                hosts.advance(back_s)
                before = hosts.clock._known
                hosts.clock._known = anchored(before, Reading(store_at, requested_s, hosts.running_s))
                self.assertLessEqual(abs(hosts.error_s), best_s + 1e-5, seed)
                self.assertGreaterEqual(hosts.clock() + timedelta(seconds=best_s), last, seed)
                last = hosts.clock()
                hosts.advance(random.random() * 10)

    def test_a_store_whose_clock_is_set_is_followed_with_the_next_reading(self) -> None:
        hosts = Hosts()
        hosts.clock.read()
        for by_s in (3600.0, -86400.0):
            hosts.store_at += timedelta(seconds=by_s)
            hosts.clock.read()
            self.assertAlmostEqual(hosts.error_s, 0)


class SteadyClockTest(unittest.TestCase):
    def setUp(self) -> None:
        self.captured = LogCapture()

    def steady_clock(self, hosts: Hosts) -> SteadyClock:
        return SteadyClock(hosts.read_store, self.captured.logger, host=hosts.host, running=lambda: hosts.running_s)

    def hours_until_believed(self, hosts: Hosts, steady: SteadyClock) -> float:
        """Read every quarter of an hour until the clock is believed."""
        quarters = 0
        while not steady():
            hosts.advance(900)
            quarters += 1
        return quarters / 4

    def test_a_clock_that_goes_on_with_this_hosts_running_time_is_believed(self) -> None:
        hosts = Hosts()
        steady = self.steady_clock(hosts)
        for days in (0, 0.01, 40, 400):
            hosts.advance(days * 86400)
            self.assertTrue(steady())
        self.assertEqual(self.captured.messages, [])

    def test_one_that_jumps_ahead_for_one_reading_is_not_believed_and_at_once_when_it_is_back(self) -> None:
        hosts = Hosts()
        steady = self.steady_clock(hosts)
        self.assertTrue(steady())
        hosts.advance(3600)
        hosts.store_at += timedelta(days=30)
        self.assertFalse(steady())
        hosts.advance(600)
        hosts.store_at -= timedelta(days=30)
        self.assertTrue(steady())
        self.assertEqual(
            self.captured.messages,
            [
                "PostgreSQL's clock jumped ahead, retention waits",
                "PostgreSQL's clock is believed again, retention goes on",
            ],
        )

    def test_a_jump_is_believed_when_it_has_lasted_for_an_hour(self) -> None:
        hosts = Hosts()
        steady = self.steady_clock(hosts)
        hosts.store_at += timedelta(days=30)
        self.assertEqual(self.hours_until_believed(hosts, steady), 1)
        self.assertEqual(len(self.captured.messages), 2)

    def test_the_hour_begins_again_with_each_jump(self) -> None:
        hosts = Hosts()
        steady = self.steady_clock(hosts)
        for days in (30, 30, -10):
            hosts.store_at += timedelta(days=days)
            self.assertFalse(steady())
            hosts.advance(3000)
        self.assertEqual(self.hours_until_believed(hosts, steady), 0.25)

    def test_at_the_start_this_hosts_clock_is_the_other_opinion(self) -> None:
        for offset_s, believed in ((0.0, True), (-500.0, True), (40 * 86400.0, True), (-40 * 86400.0, False)):
            with self.subTest(offset_s):
                self.assertIs(self.steady_clock(Hosts(offset_s=offset_s))(), believed)

    def test_a_clock_that_is_set_back_is_believed_at_once(self) -> None:
        hosts = Hosts()
        steady = self.steady_clock(hosts)
        hosts.store_at -= timedelta(days=30)
        self.assertTrue(steady())
        self.assertTrue(steady())


class ClockWatchTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hosts = Hosts()
        self.captured = LogCapture()
        self.offsets: list[float] = []
        self.watch = ClockWatch(
            self.hosts.clock, measured=self.offsets.append, logger=self.captured.logger, host=self.hosts.host
        )

    def step(self, offset_s: float) -> list[tuple[int, str]]:
        """The log records of a step while this host's clock is so far ahead."""
        self.captured.records.clear()
        self.hosts.offset_s = offset_s
        self.hosts.advance(5)
        self.assertFalse(self.watch.step())
        self.assertAlmostEqual(self.offsets[-1], offset_s)
        return [(record.levelno, record.getMessage()) for record in self.captured.records]

    def test_a_clock_that_is_far_off_is_reported_once_with_both_times(self) -> None:
        self.assertEqual(self.step(4.9), [])
        for offset_s in (40 * 86400.0, -5.1):
            with self.subTest(offset_s):
                self.assertEqual(self.step(offset_s), [(logging.WARNING, "this host's clock is far from PostgreSQL's")])
                [record] = self.captured.records
                here, there = (datetime.fromisoformat(getattr(record, name)) for name in ("here", "postgres"))
                self.assertAlmostEqual((here - there).total_seconds(), offset_s)
                self.assertIn("ahead of" if offset_s > 0 else "behind", record.why)  # type: ignore[attr-defined]
                self.assertEqual(self.step(offset_s), [])
                self.assertEqual(self.step(4.0), [], "no line for each step of a clock that stands at the limit")
                self.assertEqual(self.step(1.0), [(logging.INFO, "this host's clock agrees with PostgreSQL's again")])

    def test_while_the_store_is_away_nothing_is_measured(self) -> None:
        self.step(0.0)
        self.hosts.away = True
        with self.assertRaises(Unavailable):
            self.watch.step()
        self.assertEqual(len(self.offsets), 1)
