"""The executor with failures: temporary and final answers, defects, completions that the store rejects."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterator
from unittest import mock

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import OpKind
from rtmanager.domain.record import Status
from rtmanager.fakes import Meant
from rtmanager.fakes.store import CALL_POSITION
from rtmanager.operations.runner import DEFECT_TRIES
from rtmanager.operations.troubles import Kind
from rtmanager.ports.runtime import ImageRefInvalid, LaunchInvalid
from rtmanager.ports.store import StoreRejected
from rtmanager.tests.making import IMAGE_2, job, request, start_fields, stop_fields
from rtmanager.tests.operating import World, job_request, wait_until
from rtmanager.tests.test_executor import START, STOP, ExecutorTestCase


class AnswersTest(ExecutorTestCase):
    """A temporary answer is retried; answers of that kind for too long end the operation."""

    LIMIT_S = 900.0

    def try_for(self, seconds: float, step_s: float = 60.0) -> None:
        """Retry for so many seconds."""
        for _ in range(int(seconds / step_s)):
            self.one.once()
            self.world.clock.advance(step_s)
        self.one.once()

    def test_the_same_answer_for_too_long_ends_a_start_with_the_code_of_its_step(self) -> None:
        codes = {
            "network_exists": ("internal_error", 0),
            "ensure_image": ("image_pull_failed", 1),
            "launch": ("container_start_failed", 1),
        }
        for method, (code, intents) in codes.items():
            with self.subTest(method):
                self.world = World()
                self.one = self.instance()
                self.world.docker.refuse(method, Meant.TEMPORARY)
                self.accept(job(START, 1))
                self.try_for(self.LIMIT_S - 60)
                self.assertEqual((self.world.results(), self.states()), ([], ["due"]))
                self.try_for(120)
                self.assertEqual(self.world.results(), [("failure", code)])
                (result,) = self.world.sent(Stream.JOB_RESULTS)
                self.assertIn(f"set to refuse {method}", result.fields["error_message"])
                self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), intents)
                self.assert_consistent()

    def test_a_stop_and_a_cleanup_end_too_and_change_no_record(self) -> None:
        for status, kind, method in ((Status.RUNNING, OpKind.STOP, "stop"), (Status.STOPPED, OpKind.CLEANUP, "remove")):
            with self.subTest(kind):
                self.world = World()
                self.one = self.instance()
                self.world.bring(status)
                before = self.world.known()
                self.world.docker.refuse(method, Meant.TEMPORARY)
                self.world.store.add_row(job_request("g1", kind), CALL_POSITION)
                self.try_for(self.LIMIT_S + 120)
                self.assertEqual(self.world.results(), [("failure", "internal_error")])
                self.assertEqual(self.world.known(), before)

    def test_answers_in_turn_end_it_too_with_the_last_one_and_so_does_silence_between_them(self) -> None:
        def another() -> None:
            self.world.docker.refuse("ensure_image", Meant.TEMPORARY)
            self.try_once()
            self.world.docker.stop_refusing("ensure_image")

        for between in (another, self.be_silent):
            with self.subTest(between.__name__):
                self.world = World()
                self.one = self.instance()
                self.accept(job(START, 1))
                self.world.docker.refuse("launch", Meant.TEMPORARY)
                for _ in range(int(self.LIMIT_S / 120)):
                    self.try_once()
                    between()
                self.assertEqual(self.world.results(), [])
                for _ in range(2):
                    self.try_once()
                self.assertEqual(self.world.results(), [("failure", "container_start_failed")])
                (result,) = self.world.sent(Stream.JOB_RESULTS)
                self.assertIn("set to refuse launch", result.fields["error_message"])

    def test_a_long_outage_between_two_answers_does_not_count(self) -> None:
        self.accept(job(START, 1))
        self.world.docker.refuse("launch", Meant.TEMPORARY)
        self.try_for(self.LIMIT_S / 2)
        for _ in range(60):
            self.be_silent()
        self.try_for(self.LIMIT_S / 2 - 180)
        self.assertEqual((self.world.results(), self.states()), ([], ["due"]))
        self.try_for(180)
        self.assertEqual(self.world.results(), [("failure", "container_start_failed")])

    def be_silent(self) -> None:
        self.world.docker.available = False
        self.try_once()
        self.world.docker.available = True

    def try_once(self) -> None:
        self.one.once()
        self.world.clock.advance(60)

    def test_since_when_outlives_the_instance(self) -> None:
        self.world.docker.refuse("launch", Meant.TEMPORARY)
        self.accept(job(START, 1))
        self.try_for(self.LIMIT_S / 2)
        self.one = self.instance(2)
        self.try_for(self.LIMIT_S / 2 + 120)
        self.assertEqual(self.world.results(), [("failure", "container_start_failed")])

    def test_silence_ends_nothing_however_long(self) -> None:
        self.accept(job(START, 1))
        self.world.docker.available = False
        self.try_for(10 * self.LIMIT_S, step_s=600)
        self.assertEqual((self.world.results(), self.states()), ([], ["due"]))

    def test_a_half_done_restart_or_patch_is_retried_with_an_alarm(self) -> None:
        for kind, method in itertools.product((OpKind.RESTART, OpKind.PATCH), ("promote", "remove", "ensure_image")):
            with self.subTest(kind=kind, method=method):
                self.world = World()
                self.one = self.instance()
                self.world.bring(Status.RUNNING)
                image = {"image_ref": IMAGE_2} if kind is OpKind.PATCH else {}
                self.one.queue.submit(request("g1", kind, **image))
                self.world.docker.refuse("promote" if method == "ensure_image" else method, Meant.TEMPORARY)
                self.one.once()
                self.world.docker.refuse(method, Meant.TEMPORARY)
                self.try_for(4 * self.LIMIT_S)
                self.assertEqual(self.states()[-1], "due")
                (trouble,) = self.one.executor.troubles.now().values()
                self.assertEqual((trouble.kind, trouble.game_id), (Kind.HALF_DONE, "g1"))
                errors = [r for r in self.world.captured.records if r.levelname == "ERROR"]
                self.assertEqual(len(errors), 1, "once in a while, not with each try")
                for each in ("promote", method):
                    self.world.docker.stop_refusing(each)
                self.try_for(60)
                self.assertEqual(self.states()[-1], "done")
                self.assertEqual(self.one.executor.troubles.now(), {})
                self.assert_consistent()

    def test_a_restart_that_has_done_nothing_yet_ends_and_the_game_runs_on(self) -> None:
        for method, code in (("ensure_image", "image_pull_failed"), ("create_next", "container_start_failed")):
            with self.subTest(method):
                self.world = World()
                self.one = self.instance()
                self.world.bring(Status.RUNNING)
                self.world.store.add_row(job_request("g1", OpKind.RESTART), CALL_POSITION)
                self.world.docker.refuse(method, Meant.TEMPORARY)
                self.try_for(self.LIMIT_S + 120)
                self.assertEqual(self.world.results(), [("failure", code)])
                self.assertEqual(len(self.world.running()), 1)
                self.assert_consistent()

    def test_a_final_answer_ends_everything_at_once(self) -> None:
        for status, kind, method, code in (
            (None, OpKind.START, "network_exists", "internal_error"),
            (None, OpKind.START, "ensure_image", "image_pull_failed"),
            (None, OpKind.START, "launch", "container_start_failed"),
            (Status.STOPPED, OpKind.START, "remove", "internal_error"),
            (Status.RUNNING, OpKind.STOP, "stop", "internal_error"),
            (Status.RUNNING, OpKind.RESTART, "create_next", "container_start_failed"),
            (Status.RUNNING, OpKind.RESTART, "promote", "container_start_failed"),
            (Status.RUNNING, OpKind.RESTART, "stop", "internal_error"),
            (Status.RUNNING, OpKind.RESTART, "remove", "internal_error"),
            (Status.STOPPED, OpKind.CLEANUP, "remove", "internal_error"),
        ):
            with self.subTest(kind=kind, method=method):
                self.world = World()
                self.one = self.instance()
                self.world.bring(status)
                self.world.docker.refuse(method, Meant.FINAL)
                self.world.store.add_row(job_request("g1", kind), CALL_POSITION)
                self.one.once()
                self.assertEqual(self.world.results(), [("failure", code)])
                (result,) = self.world.sent(Stream.JOB_RESULTS)
                self.assertIn(f"set to refuse {method}", result.fields["error_message"])

    def test_what_docker_calls_malformed_is_a_start_that_is_configured_badly(self) -> None:
        for method, error in (("request_image", ImageRefInvalid("odd")), ("launch", LaunchInvalid("odd"))):
            with self.subTest(method):
                self.world = World()
                self.one = self.instance()
                self.world.runtime.raises[method] = error
                self.accept(job(START, 1))
                self.one.once()
                self.assertEqual(self.world.results(), [("failure", "start_config_invalid")])
                self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), 1)

    def test_a_foreign_text_of_any_length_is_cut_in_log_stream_and_mail(self) -> None:
        self.world.docker.fail_launch("g1", "x" * 300_000)
        self.accept(job(START, 1))
        self.one.once()
        texts = [value for each in self.world.store.messages.values() for value in each.fields.values()]
        texts += [row.error_message or "" for row in self.world.store.log]
        self.assertLess(max(map(len, texts)), 5000)

    def test_a_call_gets_a_temporary_answer_at_once(self) -> None:
        self.world.docker.refuse("launch", Meant.TEMPORARY)
        operation_id = self.one.queue.submit(request("g1"))
        self.one.once()
        self.world.docker.stop_refusing("launch")
        with self.assertRaisesRegex(Unavailable, "set to refuse launch"):
            self.one.completions.wait(operation_id, 0)


class DefectsTest(ExecutorTestCase):
    """An unforeseen error is retried a few times, then reported; it delays no other game."""

    def work_it_off(self) -> None:
        for _ in range(DEFECT_TRIES + 2):
            self.one.work()
            self.world.clock.advance(10)

    def raising(self, *names: str, game_id: str = "g1") -> None:
        """Make these calls of the store raise while g1 has a running operation."""

        def hook(name: str) -> None:
            if name in names and any(row.state == "running" for row in self.world.store.live.get(game_id, ())):
                raise ZeroDivisionError(f"in {name}")

        self.world.store.trouble.before = hook

    def test_a_defect_in_any_step_becomes_a_result(self) -> None:
        for method in ("network_exists", "request_image", "launch"):
            with self.subTest(method):
                self.world = World()
                self.one = self.instance()
                self.world.runtime.raises[method] = ZeroDivisionError("secret detail")
                self.accept(job(START, 1), job(START, 2, start_fields("g2")))
                self.one.once()
                self.assertEqual(self.world.results(), [], "the first try may have had bad luck")
                self.work_it_off()
                self.assertEqual(self.world.results(), [("failure", "internal_error")] * 2)
                for result in self.world.sent(Stream.JOB_RESULTS):
                    self.assertNotIn("secret detail", result.fields["error_message"])
                self.assertEqual([row.defects for row in self.world.store.operations.values()], [DEFECT_TRIES - 1] * 2)

    def test_a_defect_that_goes_away_costs_nothing(self) -> None:
        self.world.runtime.raises["launch"] = ZeroDivisionError()
        self.accept(job(START, 1))
        self.one.once()
        del self.world.runtime.raises["launch"]
        self.work_it_off()
        self.assertEqual(self.world.results(), [("success", "")])
        self.assert_consistent()

    def test_a_record_that_cannot_be_read_keeps_its_own_game_only(self) -> None:
        def hook(name: str) -> None:
            if name in ("get", "of") and any(row.state == "running" for row in self.world.store.live.get("g1", ())):
                raise StoreRejected("timestamp too large (after year 10K)")

        self.world.store.trouble.before = hook
        self.accept(job(STOP, 1), *(job(START, n, start_fields(f"h{n}")) for n in range(2, 6)))
        self.work_it_off()
        results = [(m.fields["game_id"], m.fields["error_code"]) for m in self.world.sent(Stream.JOB_RESULTS)]
        self.assertEqual(sorted(results), [("g1", "internal_error"), *((f"h{n}", "") for n in range(2, 6))])

    def test_an_end_that_cannot_be_written_by_a_defect_is_a_plainer_one(self) -> None:
        left = [1]

        def hook(name: str) -> None:
            if name == "finish" and left[0]:
                left[0] -= 1
                raise ZeroDivisionError

        self.world.store.trouble.before = hook
        self.accept(job(START, 1))
        self.work_it_off()
        self.assertEqual(self.world.results(), [("failure", "container_start_failed")])
        self.assertEqual(self.world.docker.containers, [])

    def test_no_end_at_all_is_seen_and_tried_again_and_others_go_on(self) -> None:
        def hook(name: str) -> None:
            running = [row.request.game_id for rows in self.world.store.live.values() for row in rows[:1]]
            if name in ("finish", "finish_together") and "g1" in running:
                raise StoreRejected("new row violates a constraint that somebody added")

        self.accept(job(STOP, 1))
        self.world.store.trouble.before = hook
        for _ in range(8):
            self.one.work()
            self.world.clock.advance(70)
        self.assertEqual(self.world.results(), [])
        (trouble,) = self.one.executor.troubles.now().values()
        self.assertEqual((trouble.kind, trouble.game_id), (Kind.STORE_REFUSES, "g1"))
        self.assertIn("a constraint that somebody added", trouble.why)
        self.world.store.trouble.before = None
        self.accept(job(START, 2, start_fields("g2")))
        self.one.work()
        self.world.clock.advance(70)
        self.one.work()
        self.assertEqual(len(self.world.results()), 2)
        self.assertEqual(self.one.executor.troubles.now(), {})

    def test_a_claim_that_fails_by_a_defect_stops_nobody_for_good(self) -> None:
        times = [3]

        def hook(name: str) -> None:
            if name == "of" and times[0]:
                times[0] -= 1
                raise ZeroDivisionError

        self.world.store.trouble.before = hook
        self.accept(*(job(START, n, start_fields(f"g{n}")) for n in range(1, 4)))
        self.work_it_off()
        self.assertEqual(self.world.results(), [("success", "")] * 3)

    def test_without_a_thread_an_operation_is_due_again(self) -> None:
        self.accept(job(START, 1))
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.one.executor.step()
        self.assertEqual(self.one.executor.live(), [])
        self.world.clock.advance(5)
        self.one.queue.reclaim_orphans(self.one.executor.live_ids())
        self.one.work()
        self.assertEqual(self.world.results(), [("success", "")])


class LacksTest(ExecutorTestCase):
    """A resource that this host lacks (descriptors, memory, threads) ends no operation, in any step."""

    LACKS = (OSError(errno.EMFILE, "Too many open files"), MemoryError(), RuntimeError("can't start new thread"))

    def test_a_job_waits_however_often_it_meets_it(self) -> None:
        steps = ("network_exists", "request_image", "launch")
        for lack, place in itertools.product(self.LACKS, (*steps, "the record")):
            with self.subTest(lack=lack, place=place):
                self.world = World()
                self.one = self.instance()
                self.accept(job(START, 1))
                if place in steps:
                    self.world.runtime.raises[place] = lack
                else:
                    self.lack_in_store(lack, "of", "get")
                for _ in range(3 * DEFECT_TRIES):
                    self.one.work()
                    self.world.clock.advance(600)
                self.assertEqual(self.world.results(), [])
                (row,) = self.world.store.operations.values()
                self.assertEqual((row.state, row.defects), ("due", 0))
                self.assertIn("ulimit", str(row.deferred_why))
                self.world.runtime.raises.clear()
                self.world.store.trouble.before = None
                self.one.work()
                self.assertEqual(self.world.results(), [("success", "")])
                self.assert_consistent()

    def lack_in_store(self, lack: Exception, *calls: str) -> None:
        def hook(name: str) -> None:
            if name in calls:
                raise lack

        self.world.store.trouble.before = hook

    def test_an_end_is_offered_again_until_it_can_be_written(self) -> None:
        for lack in self.LACKS:
            with self.subTest(lack=lack):
                self.world = World()
                self.one = self.instance()
                self.accept(job(START, 1))
                times = iter([lack, lack])

                def hook(name: str, times: Iterator[Exception] = times) -> None:
                    if name == "finish" and (error := next(times, None)):
                        raise error

                self.world.store.trouble.before = hook
                self.one.work()
                self.assertEqual(self.world.results(), [("success", "")])
                self.assert_consistent()

    def test_a_call_is_notified_of_it_at_once(self) -> None:
        self.world.directories.raises["g1"] = Unavailable("state root", "this process can open no more files")
        operation_id = self.one.queue.submit(request("g1"))
        self.one.once()
        verdict = self.one.completions.wait(operation_id, 0)
        self.assertEqual(verdict and verdict.error_code, "service_unavailable")


class BacklogTest(ExecutorTestCase):
    def test_a_job_whose_image_is_known_to_start_does_not_wait_behind_many_that_fail(self) -> None:
        self.accept(job(START, 1, start_fields("z-first")))
        self.one.work()
        self.accept(*(job(START, n, start_fields(f"a{n:03}", image_ref=f"odd:{n}")) for n in range(2, 102)))
        self.accept(job(START, 200, start_fields("z-good")))
        self.world.store.messages.clear()
        for _ in range(3):
            self.one.executor._claim_first_at = 0.0
            self.one.once()
        results = [(m.fields["game_id"], m.fields["outcome"]) for m in self.world.sent(Stream.JOB_RESULTS)]
        self.assertIn(("z-good", "success"), results)
        self.assertLess(len(results), 40)

    def test_beside_a_start_of_a_good_image_a_backlog_of_unknown_ones_gets_one_slot(self) -> None:
        self.one = self.instance(slots=16)
        self.accept(job(START, 1, start_fields("z-first")))
        self.one.work()
        _, opens = self.world.runtime.gate("launch")
        self.accept(job(START, 2, start_fields("z-good")))
        self.one.executor.step()
        self.accept(*(job(START, n, start_fields(f"a{n:03}", image_ref=f"odd:{n}")) for n in range(3, 53)))
        self.world.store.messages.clear()
        answered = [self.results_after_a_step() for _ in range(4)]
        self.assertEqual([after - before for before, after in itertools.pairwise(answered)], [1, 1, 1])
        opens.set()
        self.one.work()
        self.assertEqual(len(self.world.sent(Stream.JOB_RESULTS)), 51)

    def test_beside_a_start_of_a_good_image_jobs_that_the_record_decides_are_claimed_in_numbers(self) -> None:
        self.one = self.instance(slots=16)
        self.accept(job(START, 1, start_fields("z-first")))
        self.one.work()
        _, opens = self.world.runtime.gate("launch")
        self.accept(job(START, 2, start_fields("z-good")))
        self.one.executor.step()
        self.accept(*(job(STOP, n, stop_fields(f"a{n:03}")) for n in range(3, 53)))
        self.world.store.messages.clear()
        answered = [self.results_after_a_step() for _ in range(4)]
        self.assertEqual([after - before for before, after in itertools.pairwise(answered)], [6, 6, 6])
        opens.set()

    def results_after_a_step(self) -> int:
        self.one.executor.step()
        wait_until(self.only_one_is_left, "the end of all but the held one")
        return len(self.world.sent(Stream.JOB_RESULTS))

    def only_one_is_left(self) -> bool:
        self.one.executor.resume()
        return len(self.one.executor.live()) == 1
