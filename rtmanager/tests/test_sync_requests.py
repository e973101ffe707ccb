"""A call is queued, waited for and answered; no caller waits without an answer."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from unittest import TestCase, mock

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import Outcome
from rtmanager.operations import sync_requests as calls_module
from rtmanager.operations.completions import KEPT, CompletionNotifier
from rtmanager.operations.sync_requests import SyncRequests
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import GameBusy, OperationResult, StoreRejected
from rtmanager.tests.making import ended, request
from rtmanager.tests.operating import PATIENCE_S, WorldTestCase, wait_until

DONE = OperationResult(Outcome.SUCCESS, None, "")


class CallsTest(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        poll = mock.patch.object(calls_module, "POLL_S", 0.002)
        poll.start()
        self.addCleanup(poll.stop)
        self.wake = Wake()
        self.completions = CompletionNotifier()
        self.required = mock.Mock()
        self.queue = self.world.store.queue(1)
        self.calls = SyncRequests(self.queue, self.completions, wake=self.wake, require=self.required)
        self.threads = ThreadPoolExecutor(2)
        self.addCleanup(self.threads.shutdown)
        self.addCleanup(self.calls.close)

    def submit(self) -> Future[OperationResult]:
        """Start a call, and wait until its operation is accepted."""
        pending = self.threads.submit(self.calls.perform, request())
        wait_until(lambda: bool(self.world.store.operations))
        return pending

    def test_a_caller_gets_the_end_that_this_instance_announces(self) -> None:
        pending = self.submit()
        self.completions.announce(1, DONE)
        self.assertEqual(pending.result(PATIENCE_S), DONE)

    def test_a_caller_gets_the_end_that_another_instance_wrote(self) -> None:
        pending = self.submit()
        other = self.world.store.queue(2)
        (operation,) = other.claim(1)
        other.finish(operation, ended(Outcome.FAILURE, error_code=ErrorCode.CONFLICT, error_message="no"))
        self.assertEqual(pending.result(PATIENCE_S), OperationResult(Outcome.FAILURE, ErrorCode.CONFLICT, "no"))

    def test_the_executor_is_notified(self) -> None:
        self.submit()
        wait_until(self.wake._event.is_set)

    def test_a_second_call_for_a_busy_game_is_refused_at_once(self) -> None:
        self.submit()
        with self.assertRaises(GameBusy):
            self.calls.perform(request())

    def test_a_put_off_operation_is_reported_as_unavailable(self) -> None:
        pending = self.submit()
        self.completions.announce(1, Unavailable("docker", "goes on by itself"))
        with self.assertRaises(Unavailable) as caught:
            pending.result(PATIENCE_S)
        self.assertEqual(caught.exception.dependency, "docker")

    def test_without_a_required_dependency_nothing_is_queued(self) -> None:
        self.required.side_effect = Unavailable("redis", "away")
        with self.assertRaises(Unavailable):
            self.calls.perform(request())
        self.assertEqual(self.world.store.operations, {})

    def test_a_call_that_cannot_be_queued_is_unavailable(self) -> None:
        self.world.store.trouble.available = False
        with self.assertRaises(Unavailable):
            self.calls.perform(request())

    def test_a_caller_is_informed_whether_the_request_may_have_been_accepted_all_the_same(self) -> None:
        for untouched in (True, False):
            lost = Unavailable("postgres", "the server went away", untouched=untouched)
            with mock.patch.object(self.queue, "submit", side_effect=lost), self.assertRaises(Unavailable) as caught:
                self.calls.perform(request())
            self.assertEqual("not known" in str(caught.exception), not untouched, caught.exception)
            self.assertIn("the server went away", str(caught.exception))

    def test_a_call_whose_end_cannot_be_read_is_unavailable_and_its_operation_is_not_lost(self) -> None:
        pending = self.submit()
        self.world.store.trouble.available = False
        with self.assertRaises(Unavailable):
            pending.result(PATIENCE_S)
        self.world.store.trouble.available = True
        self.assertEqual(len(self.queue.claim(1)), 1)

    def test_a_call_whose_end_the_store_refuses_to_give_is_answered_that_it_was_accepted(self) -> None:
        with mock.patch.object(self.queue, "verdict", side_effect=StoreRejected("no such column")):
            pending = self.submit()
            with self.assertRaisesRegex(StoreRejected, "no such column; operation 1 was accepted"):
                pending.result(PATIENCE_S)

    def test_a_caller_whose_operation_a_restore_has_forgotten_does_not_wait_for_ever(self) -> None:
        pending = self.submit()
        self.world.store.operations.clear()
        with self.assertRaises(Unavailable) as caught:
            pending.result(PATIENCE_S)
        self.assertNotIn("goes on by itself", str(caught.exception))

    def test_a_stopping_instance_takes_no_call_and_those_that_wait_go_on_waiting(self) -> None:
        pending = self.submit()
        self.calls.refuse()
        with self.assertRaises(Unavailable) as caught:
            self.calls.perform(request("g2"))
        self.assertEqual(caught.exception.dependency, "rtmanager")
        self.assertEqual(len(self.world.store.operations), 1)
        self.completions.announce(1, DONE)
        self.assertEqual(pending.result(PATIENCE_S), DONE)

    def test_once_nothing_is_claimed_only_callers_of_what_is_under_way_go_on_waiting(self) -> None:
        under_way = self.submit()
        queued = self.threads.submit(self.calls.perform, request("g2"))
        wait_until(lambda: len(self.world.store.operations) == 2)
        live = {1}
        self.calls.wait_only_for(lambda: live)
        with self.assertRaises(Unavailable) as caught:
            queued.result(PATIENCE_S)
        self.assertIn("operation 2", str(caught.exception))
        self.assertFalse(under_way.done())
        self.completions.announce(1, DONE)
        live.clear()
        self.assertEqual(under_way.result(PATIENCE_S), DONE)

    def test_a_caller_that_still_waits_at_the_end_is_answered_that_nothing_is_lost(self) -> None:
        pending = self.submit()
        self.calls.close()
        with self.assertRaises(Unavailable) as caught:
            pending.result(PATIENCE_S)
        self.assertIn("operation 1", str(caught.exception))


class CompletionsTest(TestCase):
    def test_an_end_may_come_before_its_waiter(self) -> None:
        completions = CompletionNotifier()
        completions.announce(1, DONE)
        self.assertEqual(completions.wait(1, 0), DONE)
        self.assertIsNone(completions.wait(1, 0))

    def test_an_end_is_for_its_own_waiter(self) -> None:
        completions = CompletionNotifier()
        completions.announce(2, DONE)
        self.assertIsNone(completions.wait(1, 0))

    def test_a_later_end_replaces_an_earlier_one(self) -> None:
        completions = CompletionNotifier()
        completions.announce(1, Unavailable("docker", "put off"))
        completions.announce(1, DONE)
        self.assertEqual(completions.wait(1, 0), DONE)

    def test_ends_that_nobody_waits_for_are_forgotten_oldest_first(self) -> None:
        completions = CompletionNotifier()
        for operation_id in range(KEPT + 1):
            completions.announce(operation_id, DONE)
        self.assertIsNone(completions.wait(0, 0))
        self.assertEqual(completions.wait(1, 0), DONE)

    def test_a_waiter_is_notified_by_the_end(self) -> None:
        completions = CompletionNotifier()
        found: list[OperationResult | None] = []
        waiter = threading.Thread(target=lambda: found.append(completions.wait(1, PATIENCE_S)))
        waiter.start()
        completions.announce(1, DONE)
        waiter.join()
        self.assertEqual(found, [DONE])


class WakeTest(TestCase):
    def test_what_happens_before_the_wait_is_not_forgotten_and_counts_once(self) -> None:
        wake = Wake()
        wake.set()
        with mock.patch.object(wake._event, "wait", wraps=wake._event.wait) as waited:
            wake.wait(PATIENCE_S)
            wake.wait(0)
        self.assertEqual([bool(call) for call in waited.mock_calls], [True, True])
        self.assertFalse(wake._event.is_set())
