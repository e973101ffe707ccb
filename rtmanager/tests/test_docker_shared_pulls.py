"""Pulls are shared, limited by registry, and cancelled when no caller waits for them."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from rtmanager.adapters.docker import shared_pulls as module
from rtmanager.adapters.docker.shared_pulls import PullLimits, SharedPulls, Waiter
from rtmanager.adapters.docker.sockets import Call
from rtmanager.domain.errors import Unavailable
from rtmanager.ports.runtime import Image, ImageUnavailable
from rtmanager.tests.fake_daemon import until

PATIENCE_S = 20.0
LOGGER = logging.getLogger("rtmanager.tests.shared_pulls")


class Registry:
    """A registry whose pulls wait until the test releases or cancels them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.broken_off: list[str] = []
        self.free = threading.Event()
        self.highest: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def pull(self, image_ref: str, call: Call) -> Image:
        registry = image_ref.partition("/")[0]
        with self._lock:
            self.begun.append(image_ref)
            for name in (registry, "all"):
                self._now[name] += 1
                self.highest[name] = max(self.highest[name], self._now[name])
        until_s = time.monotonic() + PATIENCE_S
        while not self.free.wait(0.002) and not call.broken_off and time.monotonic() < until_s:
            pass
        with self._lock:
            for name in (registry, "all"):
                self._now[name] -= 1
            if not self.free.is_set():
                self.broken_off.append(image_ref)
                raise ImageUnavailable("broken off")
        if "lacking" in image_ref:
            raise OSError(errno.EMFILE, "Too many open files")
        if "absent" in image_ref:
            raise ImageUnavailable(f"{image_ref} is absent")
        return Image(f"id of {image_ref}", {})


class PullsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.registry = Registry()
        self.addCleanup(self.registry.free.set)
        self.pulls = self.make()

    def make(self, total_s: float = 60.0, per_registry: int = 2) -> SharedPulls:
        pulls = SharedPulls(self.registry.pull, PullLimits(total_s, 60.0, per_registry), LOGGER)
        self.addCleanup(pulls.close)
        return pulls

    def test_from_one_registry_so_many_go_on_at_once_and_another_is_not_delayed(self) -> None:
        silent = [self.pulls.join(f"silent.test/game:{n}") for n in range(50)]
        until(lambda: len(self.registry.begun) == 2)
        self.pulls.join("good.test/game:1")
        until(lambda: "good.test/game:1" in self.registry.begun)
        self.registry.free.set()
        self.assertEqual(
            {waiter.image().image_id for waiter in silent}, {f"id of silent.test/game:{n}" for n in range(50)}
        )
        self.assertEqual(self.registry.highest["silent.test"], 2)
        self.assertEqual(self.registry.begun[3:], [f"silent.test/game:{n}" for n in range(2, 50)])

    def test_so_many_go_on_at_once_in_all_and_the_registry_with_the_fewest_is_next(self) -> None:
        with mock.patch.object(module, "PULLS_AT_ONCE", 5):
            many = [self.pulls.join(f"r{n % 10}.test/game:{n}") for n in range(40)]
            until(lambda: len(self.registry.begun) == 5)
            self.assertEqual(len({each.partition("/")[0] for each in self.registry.begun}), 5)
            self.registry.free.set()
            for waiter in many:
                waiter.image()
        self.assertLessEqual(self.registry.highest["all"], 5)

    def test_what_this_process_lacks_is_silence(self) -> None:
        self.registry.free.set()
        waiter = self.pulls.join("a.test/lacking:1")
        with self.assertRaisesRegex(Unavailable, "open no more files; remedy: raise"):
            waiter.image()

    def test_threads_are_bounded_however_many_wait(self) -> None:
        before = threading.active_count()
        waiters = [self.pulls.join(f"silent.test/game:{n % 700}") for n in range(5000)]
        self.assertLessEqual(threading.active_count() - before, 3)
        self.pulls.close()
        for waiter in waiters:
            with self.assertRaises(Unavailable):
                waiter.image()

    def test_a_pull_is_broken_off_when_the_last_waiter_leaves_and_not_before(self) -> None:
        first, second = self.pulls.join("a.test/x:1"), self.pulls.join("a.test/x:1")
        until(lambda: len(self.registry.begun) == 1)
        first.leave()
        first.leave()
        self.assertEqual(self.registry.broken_off, [])
        second.leave()
        until(lambda: self.registry.broken_off == ["a.test/x:1"])

    def test_who_comes_after_the_last_has_left_gets_a_new_pull(self) -> None:
        self.pulls.join("a.test/x:1").leave()
        late = self.pulls.join("a.test/x:1")
        until(lambda: len(self.registry.begun) >= 1)
        self.registry.free.set()
        self.assertEqual(late.image().image_id, "id of a.test/x:1")

    def test_one_that_hangs_and_cannot_be_broken_off_keeps_nobodys_place(self) -> None:
        stuck = threading.Event()
        self.addCleanup(stuck.set)

        def pull(image_ref: str, call: Call) -> Image:
            if not self.registry.free.is_set():
                stuck.wait(PATIENCE_S)
            return Image("id", {})

        pulls = SharedPulls(pull, PullLimits(60.0, 60.0, 1), LOGGER)
        self.addCleanup(pulls.close)
        hung = pulls.join("a.test/x:1")
        other = pulls.join("a.test/y:1")
        self.registry.free.set()
        hung.leave()
        self.assertEqual(other.image().image_id, "id")
        self.assertEqual(pulls.join("a.test/x:1").image().image_id, "id")

    def test_one_that_waits_for_its_turn_leaves_the_line(self) -> None:
        waiters = [self.pulls.join(f"a.test/x:{n}") for n in range(4)]
        waiters[2].leave()
        self.registry.free.set()
        waiters[3].image()
        self.assertNotIn("a.test/x:2", self.registry.begun)

    def test_what_waits_too_long_for_its_turn_is_answered_so(self) -> None:
        pulls = self.make(total_s=0.2, per_registry=1)
        pulls.join("a.test/x:1")
        late = pulls.join("a.test/x:2")
        with self.assertRaisesRegex(ImageUnavailable, "a.test/x:2 .*waited 0.2 s.*from a.test;.*PULLS_PER_REGISTRY"):
            late.image()

    def test_what_does_not_end_in_time_is_given_up(self) -> None:
        with mock.patch.object(module, "MARGIN_S", 0.1):
            pulls = self.make(total_s=0.1)
            with self.assertRaisesRegex(ImageUnavailable, "has not ended after 0.2 s"):
                pulls.join("a.test/x:1").image()
            until(lambda: self.registry.broken_off == ["a.test/x:1"])

    def test_who_waits_is_called_once_when_it_ends_and_at_once_when_it_has(self) -> None:
        called: list[str] = []
        waiter = self.pulls.join("a.test/absent:1")
        waiter.when_ended(lambda: called.append("later"))
        self.assertEqual(called, [])
        self.registry.free.set()
        until(lambda: called == ["later"])
        waiter.when_ended(lambda: called.append("at once"))
        self.assertEqual(called, ["later", "at once"])
        with self.assertRaisesRegex(ImageUnavailable, "is absent"):
            waiter.image()

    def test_a_thread_that_cannot_be_started_only_delays(self) -> None:
        start, refusals = threading.Thread.start, iter([True])

        def refuse_once(thread: threading.Thread) -> None:
            if thread.name == "pull a.test/x:2" and next(refusals, False):
                raise RuntimeError("can't start new thread")
            start(thread)

        with mock.patch.object(threading.Thread, "start", refuse_once), self.assertLogs(LOGGER, "ERROR"):
            waiters = [self.pulls.join(f"a.test/x:{n}") for n in (1, 2)]
        self.registry.free.set()
        for waiter in waiters:
            waiter.image()

    def test_close_lets_all_go_and_leaves_no_thread(self) -> None:
        called = threading.Event()
        waiters = [self.pulls.join(f"a.test/x:{n}") for n in range(5)]
        waiters[4].when_ended(called.set)
        self.pulls.close()
        self.assertTrue(called.is_set())
        for waiter in waiters:
            with self.assertRaises(Unavailable):
                waiter.image()
        with self.assertRaises(Unavailable):
            self.pulls.join("a.test/x:1")
        self.assertEqual([each.name for each in threading.enumerate() if each.name.startswith("pull")], [])

    def test_whoever_joins_while_others_leave_gets_an_image(self) -> None:
        """Some of many threads wait and some leave; no thread joins a cancelled pull."""

        def pull(image_ref: str, call: Call) -> Image:
            for _ in range(3):
                time.sleep(0.001)
                if call.broken_off:
                    raise ImageUnavailable("broken off")
            return Image(image_ref, {})

        pulls = SharedPulls(pull, PullLimits(60.0, 60.0, 2), LOGGER)
        self.addCleanup(pulls.close)
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

        def one(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(60):
                waiter: Waiter = pulls.join(f"a.test/x:{chance.randrange(3)}")
                if chance.random() < 0.6:
                    time.sleep(chance.random() * 0.002)
                    waiter.leave()
                else:
                    self.assertTrue(waiter.image().image_id)

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(one, range(12)))


class CallTest(unittest.TestCase):
    def test_it_hangs_up_what_it_took_before_and_after_and_nothing_that_is_anothers(self) -> None:
        line, call = mock.Mock(), Call()
        call.took(line)
        line.hang_up.assert_not_called()
        call.break_off()
        line.hang_up.assert_called_once_with()
        late = mock.Mock()
        call.took(late)
        late.hang_up.assert_called_once_with()
        call.ended()
        call.break_off()
        late.hang_up.assert_called_once_with()
