"""A worker's loop survives errors and stops on request; the lease keeper writes heartbeats."""

from __future__ import annotations

import errno
import threading
import unittest
from collections.abc import Callable, Sequence
from unittest import mock

from rtmanager.domain.errors import DependencyError, FinalAnswer, Unavailable
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import Operation
from rtmanager.fakes.store import MemorySessionLock
from rtmanager.operations.wake import Wake
from rtmanager.tests.making import LogCapture, job, request
from rtmanager.tests.operating import PATIENCE_S, WorldTestCase, wait_until
from rtmanager.workers import lease
from rtmanager.workers import loop as loop_module
from rtmanager.workers import status as status_module
from rtmanager.workers.lease import LeaseKeeper
from rtmanager.workers.loop import FIRST_PAUSE_S, LONGEST_PAUSE_S, Loop
from rtmanager.workers.status import WorkerStatus


class ScriptedWake(Wake):
    """A `Wake` that never waits, and records the requested timeouts."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)


class LoopTest(unittest.TestCase):
    def setUp(self) -> None:
        self.captured = LogCapture()
        self.wake = ScriptedWake()

    def run_script(self, *script: bool | BaseException) -> None:
        """Run a loop whose steps return or raise the values of the script, one after the other, then stop it."""
        left = list(script)
        over = threading.Event()

        def step() -> bool:
            if not left:
                over.set()
                return False
            do = left.pop(0)
            if isinstance(do, BaseException):
                raise do
            return do

        self.loop = loop = Loop("test", step, period_s=7.0, logger=self.captured.logger, wake=self.wake)
        loop.start()
        self.assertTrue(over.wait(PATIENCE_S))
        loop.close()
        self.waits = self.wake.waits[: len(script)]

    def test_what_the_host_lacks_is_an_outage_and_no_defect(self) -> None:
        self.run_script(*[OSError(errno.EMFILE, "Too many open files")] * 4)
        self.assertEqual([record.levelname for record in self.captured.records], ["WARNING", "INFO"])
        self.assertRegex(vars(self.captured.records[0])["error"], "can open no more files; remedy: .*ulimit -n")

    def test_a_step_that_has_more_to_do_is_run_again_at_once(self) -> None:
        self.run_script(True, True)
        self.assertEqual(set(self.waits), {7.0})

    def test_a_step_that_is_done_waits_for_its_period(self) -> None:
        self.run_script(False)
        self.assertEqual(self.waits[0], 7.0)

    def test_a_dependency_that_is_away_is_reported_once_and_once_when_it_is_back(self) -> None:
        away = Unavailable("redis", "refused")
        self.run_script(away, away, away, False)
        self.assertEqual(self.captured.messages, ["dependency does not answer, waiting for it", "worker is back"])
        self.assertEqual(vars(self.captured.records[0])["dependency"], "redis")
        self.assertEqual(vars(self.captured.records[1])["failures"], 3)

    def test_another_reason_of_the_same_outage_is_reported_too_and_each_once(self) -> None:
        gone, locked = Unavailable("redis", "connection closed"), Unavailable("redis", "wrong password")
        self.run_script(gone, locked, gone, locked, False, gone)
        logged = [vars(record).get("error", "back") for record in self.captured.records]
        self.assertEqual(logged, ["connection closed", "wrong password", "back", "connection closed", "back"])

    def test_final_answers_in_a_row_make_the_worker_fail_and_silence_does_not(self) -> None:
        away, refused = Unavailable("redis", "away"), FinalAnswer("redis", "NOPERM")
        self.assertEqual(self.failed_by(away, away, away, away), "")
        self.assertEqual(self.failed_by(refused, away, refused), "")
        self.assertIn("refused by redis", self.failed_by(refused, away, refused, away, refused))
        self.assertEqual(self.failed_by(refused, refused, refused, False), "")

    def failed_by(self, *script: bool | BaseException) -> str:
        """The problem of a worker after these steps."""
        problems: list[str] = []
        status = WorkerStatus("test", self.captured.logger)
        left = list(script)

        def step() -> bool:
            if not left:
                problems.append(status.problem())
                return False
            do = left.pop(0)
            if isinstance(do, BaseException):
                raise do
            return do

        loop = Loop("test", step, period_s=7.0, logger=self.captured.logger, wake=ScriptedWake(), status=status)
        loop.start()
        wait_until(lambda: bool(problems))
        loop.close()
        return problems[0]

    def test_it_names_what_it_waits_for_until_it_is_back(self) -> None:
        seen: list[DependencyError | None] = []
        away = Unavailable("redis", "refused")

        def step() -> bool:
            seen.append(loop.away)
            if len(seen) < 3:
                raise away
            return False

        loop = Loop("test", step, period_s=0.0, logger=self.captured.logger, wake=self.wake)
        loop.start()
        wait_until(lambda: len(seen) > 3)
        loop.close()
        self.assertEqual(seen[:4], [None, away, away, None])

    def test_it_is_away_for_long_after_a_few_failures_or_one_that_took_its_time(self) -> None:
        away = Unavailable("docker", "no answer")
        for failures, is_long in ((0, False), (1, False), (2, False), (3, True)):
            self.assertIs(self.was_away_for_long(*[away] * failures), is_long, failures)
        self.assertFalse(self.was_away_for_long(away, away, away, False))
        with mock.patch.object(status_module, "FAILING_S", 0.0):
            self.assertTrue(self.was_away_for_long(away))
            self.assertFalse(self.was_away_for_long(away, False))

    def was_away_for_long(self, *script: bool | BaseException) -> bool:
        """`is_away_for_long` of a loop after these steps."""
        found: list[bool] = []
        left = list(script)

        def step() -> bool:
            if not left:
                found.append(loop.is_away_for_long())
                return False
            do = left.pop(0)
            if isinstance(do, BaseException):
                raise do
            return do

        loop = Loop("test", step, period_s=7.0, logger=self.captured.logger, wake=ScriptedWake())
        loop.start()
        wait_until(lambda: bool(found))
        loop.close()
        return found[0]

    def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_success(self) -> None:
        away = Unavailable("redis", "refused")
        self.run_script(*[away] * 7, False, away)
        self.assertEqual(self.waits[:3], [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S])
        self.assertEqual(self.waits[6], LONGEST_PAUSE_S)
        self.assertEqual(self.waits[7:9], [7.0, FIRST_PAUSE_S])

    def test_a_defect_is_reported_with_its_traceback_once_and_the_worker_lives(self) -> None:
        self.run_script(ZeroDivisionError(), ZeroDivisionError(), False)
        self.assertEqual(self.captured.messages, ["worker step failed", "worker is back"])
        self.assertEqual([bool(r.exc_info) for r in self.captured.records], [True, False])
        self.assertEqual(vars(self.captured.records[1])["failures"], 2)

    def test_a_defect_that_comes_and_goes_is_not_reported_each_time(self) -> None:
        self.run_script(*(ZeroDivisionError() if number % 2 else False for number in range(1, 21)))
        self.assertEqual(self.captured.messages, ["worker step failed", "worker is back"])

    def test_nothing_that_a_step_raises_ends_the_worker(self) -> None:
        self.run_script(SystemExit(1), KeyboardInterrupt(), GeneratorExit(), MemoryError(), False)
        self.assertEqual(self.captured.messages[-1], "worker is back")
        self.assertEqual(self.loop.status.problem(), "")

    def test_its_status_has_a_defect_that_repeats_until_a_step_succeeds(self) -> None:
        problems: list[str] = []

        def step() -> bool:
            problems.append(loop.status.problem())
            if len(problems) < 6:
                raise TypeError("no such thing")
            return False

        loop = Loop("test", step, period_s=0.0, logger=self.captured.logger, wake=self.wake)
        loop.start()
        wait_until(lambda: len(problems) > 6)
        loop.close()
        self.assertEqual(problems[:3], ["", "", ""])
        for problem, count in zip(problems[3:6], (3, 4, 5), strict=True):
            self.assertRegex(problem, rf"by a defect since 20\S+Z, {count} times in a row: TypeError: no such thing")
        self.assertEqual(problems[6], "")

    def test_an_outage_is_no_defect(self) -> None:
        self.run_script(*[Unavailable("redis", "refused")] * 10)
        self.assertEqual(self.loop.status.problem(), "")

    def test_a_close_leaves_a_step_that_hangs_for_ever_and_an_interrupt_that_fails(self) -> None:
        released = threading.Event()
        entered = threading.Event()
        self.addCleanup(released.set)

        def step() -> bool:
            entered.set()
            return released.wait(PATIENCE_S)

        with mock.patch.multiple(loop_module, _NUDGE_S=0.001, LEFT_AFTER_S=0.05):
            interrupt = mock.Mock(side_effect=TypeError("no"))
            loop = Loop("test", step, period_s=60, logger=self.captured.logger, interrupt=interrupt)
            loop.start()
            self.assertTrue(entered.wait(PATIENCE_S))
            loop.close()
        logged = ["worker could not be interrupted", "worker does not end, its thread is left"]
        self.assertEqual(self.captured.messages, logged)

    def test_a_thread_that_ends_by_itself_is_reported(self) -> None:
        with mock.patch.object(Loop, "_guarded_step", side_effect=SystemExit):
            loop = Loop("test", lambda: False, period_s=1, logger=self.captured.logger)
            loop.start()
            wait_until(lambda: "thread has ended" in loop.status.problem())
        loop.close()
        self.assertEqual(loop.status.problem(), "")

    def test_a_close_interrupts_a_step_that_blocks_as_often_as_it_takes(self) -> None:
        released = threading.Event()
        entered = threading.Event()
        tries = iter((Unavailable("redis", "gone"), None, None))

        def step() -> bool:
            entered.set()
            released.wait(PATIENCE_S)
            return True

        def interrupt() -> None:
            error = next(tries, None)
            if error is not None:
                raise error
            released.set()

        with mock.patch.object(loop_module, "_NUDGE_S", 0.001):
            loop = Loop("test", step, period_s=60, logger=self.captured.logger, interrupt=interrupt)
            loop.start()
            self.assertTrue(entered.wait(PATIENCE_S))
            loop.close()
        self.assertTrue(released.is_set())

    def test_a_close_does_not_wait_for_the_period(self) -> None:
        steps: list[int] = []

        def step() -> bool:
            steps.append(1)
            return False

        loop = Loop("test", step, period_s=60, logger=self.captured.logger)
        loop.start()
        wait_until(lambda: bool(steps))
        loop.close()
        self.assertEqual(len(steps), 1)

    def test_a_wake_runs_the_next_step_now(self) -> None:
        wake, steps = Wake(), threading.Semaphore(0)

        def step() -> bool:
            steps.release()
            return False

        loop = Loop("test", step, period_s=60, logger=self.captured.logger, wake=wake)
        loop.start()
        self.addCleanup(loop.close)
        self.assertTrue(steps.acquire(timeout=PATIENCE_S))
        wake.set()
        self.assertTrue(steps.acquire(timeout=PATIENCE_S))

    def test_a_loop_that_was_never_started_can_be_closed(self) -> None:
        Loop("test", lambda: False, period_s=1, logger=self.captured.logger).close()


class LeaseKeeperTest(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.world.store
        self.live: list[Operation] = []
        self.found = mock.Mock()
        self.session_lock = MemorySessionLock(self.store, 1)
        self.keeper = self.keep(lambda: self.live)

    def keep(self, live: Callable[[], list[Operation]]) -> LeaseKeeper:
        queue = self.world.queue
        return LeaseKeeper(queue, self.session_lock, live=live, found=self.found, logger=self.world.captured.logger)

    def test_what_is_worked_on_is_kept_alive_for_any_number_of_leases(self) -> None:
        self.live = [self.world.claim(request())]
        for _ in range(5):
            self.world.clock.advance(self.store.lease_s - 1)
            self.assertFalse(self.keeper.step())
            self.assertEqual(list(self.store.queue(2).reclaim_orphans()), [])
        self.found.assert_not_called()

    def test_what_waits_for_a_pull_is_kept_alive_by_fewer_heartbeats(self) -> None:
        works, waits = self.world.claim(request("g1")), self.world.claim(request("g2"))
        queue = mock.Mock(wraps=self.world.queue)
        keeper = LeaseKeeper(
            queue,
            self.session_lock,
            live=lambda: [works, waits],
            waiting=lambda: [waits],
            lease_s=20.0,
            now=iter(range(100, 200)).__next__,
            found=self.found,
            logger=self.world.captured.logger,
        )
        queue.heartbeat.side_effect = [Unavailable("postgres", "away"), *[mock.DEFAULT] * 8]
        with self.assertRaises(Unavailable):
            keeper.step()
        for _ in range(8):
            keeper.step()
        kept = [set(call.args[0]) for call in queue.heartbeat.call_args_list]
        both, one = {works, waits}, {works}
        self.assertEqual(kept, [both, both, one, one, one, both, one, one, one])
        for call in queue.heartbeat.call_args_list:
            self.assertEqual(call.kwargs, {"skip_locked": True}, "one row that is locked costs no other its heartbeat")
        for call in queue.reclaim_orphans.call_args_list:
            self.assertEqual(set(call.args[0]), {works.operation_id, waits.operation_id})

    def test_presence_is_shown_even_with_nothing_to_do(self) -> None:
        self.store.present.clear()
        self.keeper.step()
        self.assertEqual(self.store.present, {1})

    def test_operations_of_an_instance_that_is_gone_are_taken_over_and_logged(self) -> None:
        gone = self.store.queue(9)
        with self.store.inbox.lock() as lock:
            assert lock is not None
            lock.accept([job(Stream.START_JOBS, 1)])
        (operation,) = gone.claim(1)
        MemorySessionLock(self.store, 9).close()
        self.world.clock.advance(self.store.grace_s + 1)
        self.keeper.step()
        self.found.assert_called_once_with()
        (logged,) = self.world.captured.records
        self.assertEqual(vars(logged)["operation_id"], operation.operation_id)
        self.assertEqual((vars(logged)["game_id"], vars(logged)["op_kind"]), ("g1", "start"))
        self.assertEqual(logged.getMessage(), lease.TAKEN_OVER)

    def test_an_operation_of_its_own_is_not_reported_as_that_of_an_instance_that_is_gone(self) -> None:
        self.world.claim(request())
        self.world.clock.advance(self.store.grace_s + 1)
        self.keeper.step()
        self.assertEqual(self.world.captured.messages, [lease.TAKEN_BACK])

    def test_what_is_claimed_while_a_heartbeat_waits_is_not_taken_back(self) -> None:
        first = self.world.claim(request("g1"))
        self.live = [first]
        queue = mock.Mock(wraps=self.world.queue)

        def slow(beating: Sequence[Operation], **_: bool) -> set[int]:
            self.live = [first, self.world.claim(request("g2"))]
            self.world.clock.advance(self.store.grace_s + 1)
            return self.world.queue.heartbeat(beating)

        queue.heartbeat.side_effect = slow
        keeper = LeaseKeeper(
            queue, self.session_lock, live=lambda: self.live, found=self.found, logger=self.world.captured.logger
        )
        keeper.step()
        self.found.assert_not_called()

    def test_a_store_that_is_away_is_left_to_the_loop(self) -> None:
        self.store.trouble.available = False
        with self.assertRaises(Unavailable):
            self.keeper.step()
