"""Every operation on a game in every status: answer, record, log, messages (contract, "Operations")."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast
from unittest import mock

from rtmanager.domain.container import (
    KIND,
    LABEL_GAME_ID,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerSpec,
    ContainerState,
)
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import KINDS, QUEUED, Completion, OpKind, OpSource, Outcome, Request
from rtmanager.domain.record import Status
from rtmanager.fakes import FakeImage
from rtmanager.operations import runner
from rtmanager.operations.executor import LAUNCHING, QUICK
from rtmanager.ports.runtime import ContainerNotFound, NameTaken
from rtmanager.tests.making import IMAGE, IMAGE_2, NETWORK, SETTINGS, request, view
from rtmanager.tests.operating import World, WorldTestCase, job_request

NO_OP = ErrorCode.REPLAY_NO_OP


@dataclass(frozen=True)
class Case:
    """One row of the matrix; `code` None is a plain success."""

    kind: OpKind
    before: Status | None
    code: ErrorCode | None
    after: Status | None
    rows: tuple[str, ...]
    events: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.code not in (None, NO_OP)


RECREATED = ("stop", "start", "{}")
MATRIX = (
    Case(OpKind.START, None, None, Status.RUNNING, ("start",), ("container_started",)),
    Case(OpKind.START, Status.RUNNING, NO_OP, Status.RUNNING, ("start",)),
    Case(OpKind.START, Status.STOPPED, None, Status.RUNNING, ("start",), ("container_started",)),
    Case(OpKind.START, Status.REMOVED, None, Status.RUNNING, ("start",), ("container_started",)),
    Case(OpKind.STOP, None, ErrorCode.NOT_FOUND, None, ("stop",)),
    Case(OpKind.STOP, Status.RUNNING, None, Status.STOPPED, ("stop",)),
    Case(OpKind.STOP, Status.STOPPED, NO_OP, Status.STOPPED, ("stop",)),
    Case(OpKind.STOP, Status.REMOVED, NO_OP, Status.REMOVED, ("stop",)),
    Case(OpKind.RESTART, None, ErrorCode.NOT_FOUND, None, ("restart",)),
    Case(OpKind.RESTART, Status.RUNNING, None, Status.RUNNING, RECREATED, ("container_started",)),
    Case(OpKind.RESTART, Status.STOPPED, None, Status.RUNNING, RECREATED, ("container_started",)),
    Case(OpKind.RESTART, Status.REMOVED, ErrorCode.CONFLICT, Status.REMOVED, ("restart",)),
    Case(OpKind.PATCH, None, ErrorCode.NOT_FOUND, None, ("patch",)),
    Case(OpKind.PATCH, Status.RUNNING, None, Status.RUNNING, RECREATED, ("container_started",)),
    Case(OpKind.PATCH, Status.STOPPED, None, Status.RUNNING, RECREATED, ("container_started",)),
    Case(OpKind.PATCH, Status.REMOVED, ErrorCode.CONFLICT, Status.REMOVED, ("patch",)),
    Case(OpKind.CLEANUP, None, ErrorCode.NOT_FOUND, None, ("cleanup_container",)),
    Case(OpKind.CLEANUP, Status.RUNNING, ErrorCode.CONFLICT, Status.RUNNING, ("cleanup_container",)),
    Case(OpKind.CLEANUP, Status.STOPPED, None, Status.REMOVED, ("cleanup_container",)),
    Case(OpKind.CLEANUP, Status.REMOVED, NO_OP, Status.REMOVED, ("cleanup_container",)),
)


def request_of(case: Case) -> Request:
    return request("g1", case.kind, **({"image_ref": IMAGE_2} if case.kind is OpKind.PATCH else {}))


class MatrixTest(WorldTestCase):
    def test_the_matrix_is_whole(self) -> None:
        every = {(kind, status) for kind in QUEUED for status in (None, *Status)}
        self.assertEqual({(case.kind, case.before) for case in MATRIX}, every)

    def test_every_kind_but_those_of_the_reconciler_is_queued_claimed_and_has_its_function(self) -> None:
        kinds = set(OpKind) - {OpKind.RECONCILE_ADOPT, OpKind.RECONCILE_DISPOSE}
        self.assertEqual(kinds, set(KINDS), "KINDS in domain/operation.py")
        self.assertEqual(kinds, set(runner._WORK), "_WORK in operations/runner.py")
        self.assertEqual((LAUNCHING | QUICK, LAUNCHING & QUICK), (kinds, set()), "operations/executor.py")

    def test_the_rules_of_each_kind_are_what_its_operations_do(self) -> None:
        for case in MATRIX:
            if case.code is None:
                with self.subTest(kind=case.kind, before=case.before):
                    self.world = World()
                    self.world.bring(case.before)
                    seen = self.world.record()
                    completion = self.world.do(request_of(case))
                    rules = KINDS[case.kind]
                    self.assertEqual(rules.launches, completion.launched is not None)
                    self.assertEqual(rules.replaces, [row.kind for row in completion.log][:-1] != [])
                    ended = completion.log[-1].container_id == (seen.current_container_id if seen else None)
                    self.assertEqual(rules.ends_container, ended)

    def test_every_operation_ends_as_the_contract_requires_in_every_status(self) -> None:
        for case in MATRIX:
            with self.subTest(kind=case.kind, before=case.before):
                self.world = World()
                self.world.bring(case.before)
                before, containers = self.world.record(), self.world.docker.containers
                completion = self.world.do(request_of(case))
                self.assertEqual(completion.error_code, case.code)
                self.assertIs(completion.outcome, Outcome.FAILURE if case.failed else Outcome.SUCCESS)
                self.assertEqual(bool(completion.error_message), case.code is not None)
                after = self.world.record()
                self.assertEqual(after.status if after else None, case.after)
                self.assertEqual(
                    tuple(row[0] for row in self.world.rows()), tuple(r.format(case.kind) for r in case.rows)
                )
                self.assertEqual(tuple(self.world.events()), case.events)
                self.assertEqual(self.world.results(), [])
                self.assert_consistent()
                if case.code is not None:
                    self.assertEqual((after, self.world.docker.containers), (before, containers))
                    self.assertIsNone(completion.new)

    def test_only_one_container_of_the_game_is_left(self) -> None:
        for case in MATRIX:
            with self.subTest(kind=case.kind, before=case.before):
                self.world = World()
                self.world.bring(case.before)
                self.world.do(request_of(case))
                expected = 0 if case.after in (None, Status.REMOVED) else 1
                self.assertEqual(len(self.world.docker.containers), expected)

    def test_each_row_of_the_log_names_game_source_and_times(self) -> None:
        for case in MATRIX:
            with self.subTest(kind=case.kind, before=case.before):
                self.world = World()
                self.world.bring(case.before)
                self.world.do(request_of(case))
                for row in self.world.store.log:
                    self.assertEqual((row.game_id, row.source, row.source_ref), ("g1", OpSource.GM_REST, "req-1"))
                    self.assertLessEqual(row.started_at, row.finished_at)
                last = self.world.store.log[-1]
                self.assertEqual((last.error_code, last.outcome is Outcome.FAILURE), (case.code, case.failed))


class StartTest(WorldTestCase):
    def test_a_start_requests_the_container_of_the_contract(self) -> None:
        self.world.docker.present[IMAGE] = FakeImage(labels={"com.galaxy.memory": "128m"})
        self.world.do(request())
        ((_, launched),) = self.world.docker.called("launch")
        spec = cast(ContainerSpec, launched)
        self.assertEqual((spec.game_id, spec.image_ref, spec.network), ("g1", IMAGE, NETWORK))
        self.assertEqual(spec.limits.memory_bytes, 128 << 20)
        self.assertEqual(spec.limits.pids, 512)
        self.assertEqual(spec.state_path, "/var/lib/galaxy-games/g1")
        mount = "/var/lib/galaxy-game"
        self.assertEqual(spec.environment, {"GAME_STATE_PATH": mount, "STORAGE_PATH": mount})

    def test_the_record_has_all_about_the_new_container(self) -> None:
        self.world.do(request())
        (container,) = self.world.docker.containers
        record = self.world.known()
        self.assertEqual(record.current_container_id, container.container_id)
        self.assertEqual((record.current_image_ref, record.docker_network), (IMAGE, NETWORK))
        self.assertEqual(record.engine_endpoint, "http://galaxy-game-g1:8080")
        self.assertEqual(record.state_path, "/var/lib/galaxy-games/g1")
        self.assertEqual((record.stopped_at, record.removed_at), (None, None))
        self.assertEqual(record.started_at, self.world.clock())

    def test_a_new_start_keeps_the_time_of_creation_and_takes_the_new_image(self) -> None:
        for status in (Status.STOPPED, Status.REMOVED):
            with self.subTest(status):
                self.world = World()
                self.world.bring(status)
                created = self.world.known().created_at
                completion = self.world.do(request(image_ref=IMAGE_2))
                assert completion.new is not None
                self.assertEqual(completion.new.created_at, created)
                record = self.world.known()
                self.assertEqual((record.created_at, record.current_image_ref), (created, IMAGE_2))
                self.assertGreater(record.last_op_at, created)
                self.assertEqual((record.stopped_at, record.removed_at), (None, None))

    def test_another_image_on_a_running_game_is_a_conflict(self) -> None:
        self.world.bring(Status.RUNNING)
        completion = self.world.do(request(image_ref=IMAGE_2))
        self.assertIs(completion.error_code, ErrorCode.CONFLICT)
        self.assertIn(IMAGE, completion.error_message)
        self.assertEqual(self.world.docker.called("stop"), [])

    def test_a_replay_queries_nobody(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.do(request())
        self.assertEqual((self.world.docker.calls, self.world.lobby_queries), ([], []))

    def test_the_lobby_is_queried_once_for_a_start_that_does_something(self) -> None:
        self.world.do(request())
        self.assertEqual(self.world.lobby_queries, ["g1"])

    def test_the_health_event_names_image_and_container(self) -> None:
        self.world.do(request())
        (message,) = self.world.sent(Stream.HEALTH_EVENTS)
        self.assertEqual(json.loads(message.fields["details"]), {"image_ref": IMAGE})
        self.assertEqual(message.fields["container_id"], self.world.known().current_container_id)

    def test_a_limit_that_cannot_be_read_is_logged_and_does_not_keep_the_game_from_running(self) -> None:
        self.world.docker.present[IMAGE] = FakeImage(labels={"com.galaxy.memory": "9" * 400})
        completion = self.world.do(request())
        self.assertIsNone(completion.error_code)
        self.assertIn("limits in the labels of an image cannot be read", self.world.captured.messages)

    def test_what_an_earlier_try_left_dead_is_removed(self) -> None:
        for state in (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD):
            with self.subTest(state):
                self.world = World()
                self.world.docker.add_foreign(view(state=state, container_id="left"))
                self.assertIsNone(self.world.do(request()).error_code)
                self.assertNotIn("left", [c.container_id for c in self.world.docker.containers])
                self.assert_consistent()

    def test_what_an_earlier_try_left_running_is_taken(self) -> None:
        self.world.docker.add_foreign(view(container_id="left"))
        self.assertIsNone(self.world.do(request()).error_code)
        self.assertEqual(self.world.known().current_container_id, "left")

    def test_a_stopped_game_whose_container_somebody_started_gets_a_fresh_one(self) -> None:
        self.world.bring(Status.STOPPED)
        old = str(self.world.known().current_container_id)
        self.world.docker.change(old, ContainerState.RUNNING)
        self.assertIsNone(self.world.do(request()).error_code)
        self.assertNotEqual(self.world.known().current_container_id, old)
        self.assertEqual(len(self.world.docker.containers), 1)
        self.assert_consistent()


class StartFailureTest(WorldTestCase):
    """Each reason for a failed start gives one answer, one row, one intent and no container."""

    def test_a_name_that_changes_hands_again_and_again_is_reported_with_the_last_answer(self) -> None:
        taken = NameTaken("the name is in use by container p1")
        with mock.patch.object(self.world.docker, "launch", side_effect=taken):
            self.assert_failed(ErrorCode.CONTAINER_START_FAILED, "stays taken", "in use by container p1")

    def test_a_container_that_is_removed_before_each_start_is_reported(self) -> None:
        gone = ContainerNotFound("container c1 was removed before its start")
        with mock.patch.object(self.world.docker, "launch", side_effect=gone):
            self.assert_failed(ErrorCode.CONTAINER_START_FAILED, "removed before its start each time", "prune", "c1")

    def test_one_that_is_removed_before_its_start_once_is_created_anew(self) -> None:
        launch, calls = self.world.docker.launch, []

        def once(spec: ContainerSpec, confirm: Callable[[], None]) -> str:
            calls.append(spec)
            if len(calls) == 1:
                raise ContainerNotFound("container c1 was removed before its start")
            return launch(spec, confirm)

        with mock.patch.object(self.world.docker, "launch", once):
            self.assertIs(self.world.do(job_request()).outcome, Outcome.SUCCESS)
        self.assertEqual(len(self.world.docker.containers), 1)

    def assert_failed(self, code: ErrorCode, *parts: str, wanted: Request | None = None) -> None:
        before = self.world.record()
        left = [c for c in self.world.docker.containers if before and c.container_id != before.current_container_id]
        wanted = wanted or job_request()
        completion = self.world.do(wanted)
        self.assertEqual((completion.outcome, completion.error_code), (Outcome.FAILURE, code))
        for part in parts:
            self.assertIn(part, completion.error_message)
        self.assertEqual(self.world.record(), before)
        self.assertEqual(self.world.rows(), [("start", "failure", code)])
        self.assertEqual(self.world.events(), [])
        self.assertEqual(self.world.results(), [("failure", code.value)])
        (result,) = self.world.sent(Stream.JOB_RESULTS)
        self.assertEqual((result.fields["container_id"], result.fields["engine_endpoint"]), ("", ""))
        (intent,) = self.world.sent(Stream.NOTIFICATION_INTENTS)
        self.assertEqual(intent.fields["notification_type"], f"runtime.{code.value}")
        key = f"runtime_manager:runtime.{code.value}:{wanted.game_id}:{wanted.source_ref}"
        self.assertEqual(intent.fields["idempotency_key"], key)
        payload = json.loads(intent.fields["payload_json"])
        self.assertEqual((payload["image_ref"], payload["error_code"]), (wanted.image_ref, code.value))
        self.assertEqual(payload["error_message"], completion.error_message)
        self.assertEqual([c for c in self.world.docker.containers if c.name == "galaxy-game-g1" and c.alive], left)

    def test_two_networks_of_one_name(self) -> None:
        self.world.docker.ambiguous_networks.add(NETWORK)
        self.assert_failed(ErrorCode.START_CONFIG_INVALID, f"2 Docker networks are called '{NETWORK}'")

    def test_a_missing_network(self) -> None:
        self.world.docker.networks.clear()
        self.assert_failed(ErrorCode.START_CONFIG_INVALID, NETWORK)

    def test_an_image_that_cannot_be_had(self) -> None:
        self.world.docker.present.clear()
        self.assert_failed(ErrorCode.IMAGE_PULL_FAILED, IMAGE)

    def test_a_directory_that_cannot_be_used(self) -> None:
        self.world.directories.invalid["g1"] = "read-only file system"
        self.assert_failed(ErrorCode.START_CONFIG_INVALID, "read-only file system")

    def test_a_container_that_does_not_start(self) -> None:
        self.world.docker.fail_launch("g1", "no space left on device")
        self.assert_failed(ErrorCode.CONTAINER_START_FAILED, "no space left on device")

    def test_a_malformed_image(self) -> None:
        self.assert_failed(ErrorCode.START_CONFIG_INVALID, "NOT GOOD", wanted=job_request(image_ref="NOT GOOD"))
        self.assertEqual(self.world.docker.calls, [])

    def test_a_malformed_game_id(self) -> None:
        self.assert_failed(ErrorCode.START_CONFIG_INVALID, "a.b", wanted=job_request("a.b"))
        self.assertEqual(self.world.directories.prepared, [])

    def test_a_name_that_the_renamed_container_of_another_game_has(self) -> None:
        labels = {LABEL_OWNER: OWNER, LABEL_KIND: KIND, LABEL_GAME_ID: "g2"}
        other = view(container_id="c0ffee", labels=labels)
        self.world.docker.add_foreign(other)
        message = self.world.do(job_request()).error_message
        self.assertIn("was made for game g2", message)
        self.assertIn("docker rename c0ffee galaxy-game-g2", message)
        self.assertEqual(self.world.docker.containers, [other])

    def test_a_name_that_a_stranger_has(self) -> None:
        stranger = view(container_id="stranger", labels={"com.galaxy.owner": "somebody"})
        self.world.docker.add_foreign(stranger)
        completion = self.world.do(job_request())
        self.assertIs(completion.error_code, ErrorCode.CONTAINER_START_FAILED)
        self.assertIn("stranger", completion.error_message)
        self.assertEqual(self.world.docker.containers, [stranger])
        self.assertEqual(self.world.docker.called("stop") + self.world.docker.called("remove"), [])

    def test_a_failed_start_of_a_stopped_game_leaves_it_stopped(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.docker.networks.clear()
        self.assert_failed(ErrorCode.START_CONFIG_INVALID)

    def test_over_rest_there_is_an_intent_and_no_result(self) -> None:
        self.world.docker.networks.clear()
        self.world.do(request())
        self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), 1)
        self.assertEqual(self.world.sent(Stream.JOB_RESULTS), [])

    def test_a_directory_is_not_prepared_for_an_image_that_cannot_be_had(self) -> None:
        self.world.docker.present.clear()
        self.world.do(request())
        self.assertEqual(self.world.directories.prepared, [])


class ResultTest(WorldTestCase):
    """Each job has exactly one answer on the stream (I1)."""

    def only_result(self) -> dict[str, str]:
        (result,) = self.world.sent(Stream.JOB_RESULTS)
        return dict(result.fields)

    def test_a_started_game_is_answered_with_its_container_and_endpoint(self) -> None:
        self.world.do(job_request())
        result = self.only_result()
        self.assertEqual(result["container_id"], self.world.known().current_container_id)
        self.assertEqual(result["engine_endpoint"], "http://galaxy-game-g1:8080")
        self.assertEqual((result["outcome"], result["error_code"], result["error_message"]), ("success", "", ""))

    def test_a_replay_is_answered_with_the_present_container(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.do(job_request())
        result = self.only_result()
        self.assertEqual((result["outcome"], result["error_code"]), ("success", "replay_no_op"))
        self.assertEqual(result["container_id"], self.world.known().current_container_id)

    def test_a_stop_of_an_unknown_game_is_a_failure_without_intent(self) -> None:
        self.world.do(job_request(kind=OpKind.STOP, reason="finished"))
        self.assertEqual(self.world.results(), [("failure", "not_found")])
        self.assertEqual(self.world.sent(Stream.NOTIFICATION_INTENTS), [])

    def test_a_problem_of_the_request_is_its_answer_and_nothing_is_done(self) -> None:
        self.world.bring(Status.RUNNING)
        problem = (ErrorCode.INVALID_REQUEST, "reason 'bored': expected one of …")
        completion = self.world.do(job_request(kind=OpKind.STOP, problem=problem))
        self.assertEqual((completion.error_code, completion.error_message), problem)
        self.assertEqual(self.world.results(), [("failure", "invalid_request")])
        self.assertEqual(self.world.docker.calls, [])
        self.assert_consistent()

    def test_a_bad_image_in_a_job_is_reported_to_an_administrator(self) -> None:
        self.world.do(job_request(problem=(ErrorCode.START_CONFIG_INVALID, "bad"), image_ref="NOT GOOD"))
        (intent,) = self.world.sent(Stream.NOTIFICATION_INTENTS)
        self.assertEqual(intent.fields["notification_type"], "runtime.start_config_invalid")


class StopTest(WorldTestCase):
    def test_the_engine_gets_its_grace_period_and_the_container_stays(self) -> None:
        self.world.bring(Status.RUNNING)
        container_id = self.world.known().current_container_id
        self.world.do(request(kind=OpKind.STOP))
        self.assertEqual(self.world.docker.called("stop"), [(container_id, 30)])
        record = self.world.known()
        self.assertEqual((record.current_container_id, record.stopped_at), (container_id, self.world.clock()))
        self.assertEqual(self.world.docker.called("remove"), [])

    def test_a_container_that_is_gone_makes_the_record_removed_and_the_stop_a_success(self) -> None:
        self.world.bring(Status.RUNNING)
        container_id = str(self.world.known().current_container_id)
        self.world.docker.vanish(container_id)
        completion = self.world.do(job_request(kind=OpKind.STOP, reason="finished"))
        self.assertIsNone(completion.error_code)
        self.assertIs(self.world.known().status, Status.REMOVED)
        self.assertEqual(self.world.events(), ["container_disappeared"])
        self.assertEqual(self.world.store.snapshots["g1"].container_id, container_id)
        self.assertEqual(self.world.results(), [("success", "")])
        self.assertEqual(self.world.rows(), [("stop", "success", None)])


class CleanupTest(WorldTestCase):
    def test_a_container_that_is_gone_is_cleaned_up(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.docker.vanish(str(self.world.known().current_container_id))
        self.assertIsNone(self.world.do(request(kind=OpKind.CLEANUP)).error_code)
        self.assertIs(self.world.known().status, Status.REMOVED)

    def test_a_container_that_somebody_started_is_left_alone(self) -> None:
        self.world.bring(Status.STOPPED)
        container_id = str(self.world.known().current_container_id)
        self.world.docker.change(container_id, ContainerState.RUNNING)
        self.assertIs(self.world.do(request(kind=OpKind.CLEANUP)).error_code, ErrorCode.CONFLICT)
        self.assertIs(self.world.known().status, Status.STOPPED)
        self.assertEqual(len(self.world.running()), 1)

    def test_the_row_of_the_retention_names_its_source(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.do(request(kind=OpKind.CLEANUP, source=OpSource.AUTO_TTL))
        self.assertIs(self.world.store.log[0].source, OpSource.AUTO_TTL)


class RecreateTest(WorldTestCase):
    """Restart and patch: a new container, three rows, and no loss when it cannot be created."""

    def both(self) -> tuple[Request, Request]:
        return request(kind=OpKind.RESTART), request(kind=OpKind.PATCH, image_ref=IMAGE_2)

    def test_name_and_endpoint_stay_and_the_container_is_another(self) -> None:
        for wanted in self.both():
            with self.subTest(wanted.kind):
                self.world = World()
                self.world.bring(Status.RUNNING)
                before = self.world.known()
                self.world.do(wanted)
                after = self.world.known()
                self.assertNotEqual(after.current_container_id, before.current_container_id)
                self.assertEqual((after.engine_endpoint, after.created_at), (before.engine_endpoint, before.created_at))
                self.assertEqual(after.current_image_ref, wanted.image_ref or before.current_image_ref)
                self.assert_consistent()

    def test_three_rows_have_one_source_ref_and_the_container_of_each_part(self) -> None:
        for wanted in self.both():
            with self.subTest(wanted.kind):
                self.world = World()
                self.world.bring(Status.RUNNING)
                old = self.world.known().current_container_id
                self.world.do(wanted)
                new = self.world.known().current_container_id
                log = self.world.store.log
                self.assertEqual([row.kind for row in log], [OpKind.STOP, OpKind.START, wanted.kind])
                self.assertEqual([row.container_id for row in log], [old, new, new])
                self.assertEqual({row.source_ref for row in log}, {"req-1"})
                self.assertEqual({row.outcome for row in log}, {Outcome.SUCCESS})

    def test_the_stop_part_of_a_stopped_game_is_a_replay(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.do(request(kind=OpKind.RESTART))
        self.assertEqual(
            self.world.rows(),
            [("stop", "success", "replay_no_op"), ("start", "success", None), ("restart", "success", None)],
        )

    def test_a_pull_that_fails_leaves_the_game_running_as_it_was(self) -> None:
        self.world.bring(Status.RUNNING)
        before = self.world.known()
        del self.world.docker.present[IMAGE_2]
        completion = self.world.do(request(kind=OpKind.PATCH, image_ref=IMAGE_2))
        self.assertIs(completion.error_code, ErrorCode.IMAGE_PULL_FAILED)
        self.assertEqual(self.world.known(), before)
        self.assertEqual(self.world.docker.called("stop"), [])
        self.assertEqual(self.world.rows(), [("patch", "failure", "image_pull_failed")])
        self.assert_consistent()

    def test_a_network_or_directory_that_is_gone_leaves_the_game_running_as_it_was(self) -> None:
        for broken in ("network", "directory"):
            with self.subTest(broken):
                self.world = World()
                self.world.bring(Status.RUNNING)
                if broken == "network":
                    self.world.docker.networks.clear()
                else:
                    self.world.directories.invalid["g1"] = "read-only"
                completion = self.world.do(request(kind=OpKind.RESTART))
                self.assertIs(completion.error_code, ErrorCode.START_CONFIG_INVALID)
                self.assertEqual(len(self.world.running()), 1)
                self.assert_consistent()

    def assert_left_as_it_was(self, wanted: Request, code: ErrorCode, *parts: str) -> None:
        """The operation fails, and touches neither the game nor any container."""
        record, containers = self.world.known(), self.world.docker.containers
        completion = self.world.do(wanted)
        self.assertIs(completion.error_code, code)
        for part in parts:
            self.assertIn(part, completion.error_message)
        self.assertEqual((self.world.known(), self.world.docker.containers), (record, containers))
        self.assertEqual(self.world.docker.called("stop"), [])
        self.assertEqual(self.world.rows(), [(wanted.kind.value, "failure", code)])
        self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), 1)

    def test_what_docker_refuses_to_create_leaves_the_game_running_as_it_was(self) -> None:
        for wanted in self.both():
            with self.subTest(wanted.kind):
                self.world = World()
                self.world.bring(Status.RUNNING)
                self.world.docker.refused_log_drivers.add(SETTINGS.log_driver)
                self.assert_left_as_it_was(wanted, ErrorCode.CONTAINER_START_FAILED, f"plugin {SETTINGS.log_driver}")

    def test_an_image_without_a_command_leaves_the_game_running_as_it_was(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.docker.present[IMAGE_2] = FakeImage(has_command=False)
        self.assert_left_as_it_was(self.both()[1], ErrorCode.CONTAINER_START_FAILED, "no command specified")

    def test_two_networks_of_one_name_leave_the_game_running_as_it_was(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.docker.ambiguous_networks.add(NETWORK)
        self.assert_left_as_it_was(self.both()[0], ErrorCode.START_CONFIG_INVALID, "2 Docker networks")

    def test_swapped_names_leave_both_games_running_as_they_were(self) -> None:
        for game_id in ("g1", "g2"):
            self.world.do(request(game_id))
        one, other = (str(self.world.known(game_id).current_container_id) for game_id in ("g1", "g2"))
        self.world.docker.alter(one, name="galaxy-game-g2")
        self.world.docker.alter(other, name="galaxy-game-g1")
        self.world.forget()
        self.assert_left_as_it_was(
            self.both()[0], ErrorCode.CONTAINER_START_FAILED, "taken by container", "docker rename", "galaxy-game-g2"
        )

    def test_a_stranger_with_the_games_name_leaves_a_renamed_game_running(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.docker.alter(str(self.world.known().current_container_id), name="renamed")
        self.world.docker.add_foreign(view(container_id="stranger", labels={LABEL_OWNER: "other"}))
        self.assert_left_as_it_was(self.both()[0], ErrorCode.CONTAINER_START_FAILED, "rename or remove it")

    def test_a_stranger_with_the_next_name_is_not_touched(self) -> None:
        not_ours = {"labels": {LABEL_OWNER: "other"}, "state": ContainerState.CREATED}
        for changes in (not_ours, {"state": ContainerState.RUNNING}, {"networks": frozenset({"other"})}):
            with self.subTest(**changes):
                self.world = World()
                self.world.bring(Status.RUNNING)
                self.world.docker.add_foreign(view(container_id="other", name="galaxy-game-g1.next", **changes))
                self.assert_left_as_it_was(self.both()[0], ErrorCode.CONTAINER_START_FAILED, "galaxy-game-g1.next")

    def test_what_an_earlier_restart_left_is_replaced_whether_it_was_started_or_not(self) -> None:
        for state in (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD):
            with self.subTest(state):
                self.world = World()
                self.world.bring(Status.RUNNING)
                self.world.docker.add_foreign(view(container_id="left", name="galaxy-game-g1.next", state=state))
                self.assertIsNone(self.world.do(self.both()[0]).error_code)
                self.assertEqual(len(self.world.docker.containers), 1)
                self.assert_consistent()

    def test_an_image_of_another_platform_takes_no_game_down(self) -> None:
        for image_ref in (IMAGE, IMAGE_2):
            with self.subTest(image_ref):
                self.world = World()
                self.world.bring(Status.RUNNING)
                container_id = str(self.world.known().current_container_id)
                self.world.docker.present[image_ref] = FakeImage(foreign="it is made for linux/arm64")
                self.world.docker.alter(container_id, image_id="sha256:before")
                wanted = self.both()[0 if image_ref == IMAGE else 1]
                self.assert_left_as_it_was(wanted, ErrorCode.CONTAINER_START_FAILED, "linux/arm64", "stop the game")

    def test_a_game_that_is_emulated_already_is_restarted_and_patched(self) -> None:
        for wanted in self.both():
            with self.subTest(wanted.kind):
                self.world = World()
                emulated = FakeImage(foreign="it is made for linux/arm64")
                self.world.docker.present |= {IMAGE: emulated, IMAGE_2: emulated}
                self.world.bring(Status.RUNNING)
                self.assertIsNone(self.world.do(wanted).error_code)
                self.assert_consistent()

    def test_a_new_container_that_somebody_removed_is_made_again(self) -> None:
        self.world.bring(Status.RUNNING)
        with mock.patch.object(self.world.docker, "promote", side_effect=ContainerNotFound("gone")):
            self.assertIsNone(self.world.do(self.both()[0]).error_code)
        self.assertEqual(len(self.world.docker.containers), 1)
        self.assert_consistent()

    def test_a_new_container_that_does_not_start_leaves_a_stopped_game_and_three_rows(self) -> None:
        for wanted in self.both():
            for status in (Status.RUNNING, Status.STOPPED):
                with self.subTest(kind=wanted.kind, status=status):
                    self.world = World()
                    self.world.bring(status)
                    self.world.docker.fail_launch("g1", "no space left")
                    completion = self.world.do(wanted)
                    self.assertIs(completion.error_code, ErrorCode.CONTAINER_START_FAILED)
                    record = self.world.known()
                    self.assertEqual((record.status, record.current_container_id), (Status.STOPPED, None))
                    self.assertEqual(record.current_image_ref, IMAGE)
                    self.assertEqual([row[0] for row in self.world.rows()], ["stop", "start", wanted.kind.value])
                    self.assertEqual([row[1] for row in self.world.rows()], ["success", "failure", "failure"])
                    self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), 1)
                    self.assertEqual(self.world.docker.containers, [])

    def test_a_game_between_two_containers_can_be_restarted_started_or_cleaned_up(self) -> None:
        for kind, after in (
            (OpKind.RESTART, Status.RUNNING),
            (OpKind.START, Status.RUNNING),
            (OpKind.CLEANUP, Status.REMOVED),
            (OpKind.STOP, Status.STOPPED),
        ):
            with self.subTest(kind):
                self.world = World()
                self.world.bring(Status.RUNNING)
                self.world.docker.fail_launch("g1", "no space left")
                self.world.do(request(kind=OpKind.RESTART))
                self.assertIsNot(self.world.do(request(kind=kind)).outcome, Outcome.FAILURE)
                self.assertIs(self.world.known().status, after)
                self.assert_consistent()

    def test_an_old_container_that_is_gone_is_no_hindrance(self) -> None:
        for wanted in self.both():
            with self.subTest(wanted.kind):
                self.world = World()
                self.world.bring(Status.RUNNING)
                self.world.docker.vanish(str(self.world.known().current_container_id))
                self.assertIsNone(self.world.do(wanted).error_code)
                self.assert_consistent()

    def test_a_nul_in_the_reason_of_a_failure_does_not_keep_its_end_from_being_written(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.docker.fail_launch("g1", "exec: \0 not found")
        completion = self.world.do(request(kind=OpKind.RESTART))
        self.assertIs(completion.error_code, ErrorCode.CONTAINER_START_FAILED)
        self.assertIs(self.world.known().status, Status.STOPPED)

    def test_text_that_is_no_unicode_does_not_keep_an_end_from_being_written(self) -> None:
        self.world.docker.fail_launch("g1", "no such file: /games/\udcff")
        self.world.do(job_request())
        self.assertEqual(self.world.results(), [("failure", "container_start_failed")])


class NamesakeTest(WorldTestCase):
    """Docker's DNS ignores case: a game is not started while another one has its name in other case."""

    def test_a_start_is_refused_until_the_other_game_is_removed(self) -> None:
        for status in (Status.RUNNING, Status.STOPPED):
            for before in (None, Status.REMOVED):
                with self.subTest(status, before=before):
                    self.world = World()
                    self.world.bring(before, "match7")
                    self.world.bring(status, "Match7")
                    completion = self.world.do(job_request("match7"))
                    self.assertIs(completion.error_code, ErrorCode.CONFLICT)
                    self.assertRegex(
                        completion.error_message, f"game Match7 is {status}, .* of game match7 but for the case"
                    )
                    self.assertEqual(self.world.results(), [("failure", "conflict")])
                    self.assertEqual(self.world.sent(Stream.NOTIFICATION_INTENTS), [])
                    self.assertEqual(self.world.docker.calls, [], "before anything was pulled or made")
                    if status is Status.RUNNING:
                        self.world.do(request("Match7", OpKind.STOP))
                    self.world.do(request("Match7", OpKind.CLEANUP))
                    self.assertIsNone(self.world.do(request("match7")).error_code)
                    again = self.world.do(request("Match7"))
                    self.assertIs(again.error_code, ErrorCode.CONFLICT, "the name is the other's now")

    def test_of_two_starts_at_one_time_the_first_goes_on(self) -> None:
        one, other = self.world.claim(request("match7")), self.world.claim(request("Match7"))
        arrived, gate = self.world.runtime.gate("launch")
        endings: list[Completion] = []
        thread = threading.Thread(target=lambda: endings.append(self.world.operator.run(one)))
        thread.start()
        self.addCleanup(thread.join)
        self.assertTrue(arrived.wait(5))
        refused = self.world.operator.run(other)
        gate.set()
        thread.join()
        self.assertIs(refused.error_code, ErrorCode.CONFLICT)
        self.assertIn("game match7 is being started", refused.error_message)
        self.assertIsNone(endings[0].error_code)

    def test_games_that_share_a_name_since_an_earlier_release_go_on(self) -> None:
        self.world.bring(Status.RUNNING, "match7")
        self.world.store.put_record(replace(self.world.known("match7"), game_id="Match7", current_container_id="gone"))
        for wanted in (
            request("match7", OpKind.RESTART),
            request("match7", OpKind.PATCH, image_ref=IMAGE_2),
            request("Match7", OpKind.RESTART),
            request("match7", OpKind.STOP),
            request("match7", OpKind.START),
        ):
            self.assertIsNone(self.world.do(wanted).error_code, wanted)
        self.assert_consistent()


class LostDirectoryTest(WorldTestCase):
    """A game that ran before and whose directory is missing: a warning, a counter, the text in the operation's row."""

    def do(self, wanted: Request) -> str:
        """Run a request on a game whose directory is lost; returns the text of its own row."""
        self.world.forget()
        self.world.directories.lost.add("g1")
        completion = self.world.do(wanted)
        row = self.world.store.log[-1]
        self.assertEqual((row.kind, row.outcome), (wanted.kind, completion.outcome))
        self.assertEqual(completion.error_message, row.error_message or "")
        return completion.error_message

    def test_a_start_restart_or_patch_has_it_in_its_row_and_succeeds(self) -> None:
        cases = (
            (OpKind.START, Status.STOPPED),
            (OpKind.START, Status.REMOVED),
            (OpKind.RESTART, Status.RUNNING),
            (OpKind.RESTART, Status.STOPPED),
            (OpKind.PATCH, Status.RUNNING),
        )
        for kind, before in cases:
            with self.subTest(kind, before=before):
                self.world = World()
                self.world.bring(before)
                image_ref = IMAGE_2 if kind is OpKind.PATCH else IMAGE if kind is OpKind.START else ""
                text = self.do(request(kind=kind, image_ref=image_ref))
                self.assertIn("/var/lib/galaxy-games/g1 is missing though game g1 ran before", text)
                self.assertIn("restore the directory", text)
                self.assertIs(self.world.known().status, Status.RUNNING)
                self.assertEqual(self.world.lost_directories, 1)
                lost = "state directory of a game that ran before is missing"
                self.assertEqual(self.world.captured.messages.count(lost), 1)

    def test_events_and_results_are_as_without_it(self) -> None:
        self.world.bring(Status.STOPPED)
        self.assertIn("is missing", self.do(job_request()))
        [event] = self.world.sent(Stream.HEALTH_EVENTS)
        self.assertEqual(json.loads(event.fields["details"]), {"image_ref": IMAGE})
        [result] = self.world.sent(Stream.JOB_RESULTS)
        self.assertEqual((result.fields["outcome"], result.fields["error_message"]), ("success", ""))

    def test_a_failure_names_both(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.docker.fail_launch("g1", "exec: not found")
        self.assertRegex(self.do(request()), "exec: not found.*; state directory .* is missing")
        [mail] = self.world.sent(Stream.NOTIFICATION_INTENTS)
        self.assertNotIn("is missing", mail.fields["payload_json"])

    def test_a_directory_that_cannot_be_made_is_reported_as_missing_all_the_same(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.directories.invalid["g1"] = "chown: not permitted"
        self.assertRegex(self.do(request()), "not permitted; state directory .* is missing")

    def test_a_moved_root_is_named(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.directories.root = "/srv/games"
        self.assertRegex(self.do(request()), "/srv/games/g1 is missing .* its record names /var/lib/galaxy-games/g1")

    def test_a_game_that_never_ran_has_lost_nothing(self) -> None:
        self.assertEqual(self.do(request()), "")
        self.assertEqual(self.world.lost_directories, 0)

    def test_a_stop_and_a_replay_have_nothing_of_it(self) -> None:
        self.world.bring(Status.RUNNING)
        self.assertNotIn("missing", self.do(request()))
        self.assertNotIn("missing", self.do(request(kind=OpKind.STOP)))
        self.assertEqual(self.world.lost_directories, 0)


class PatchRuleTest(WorldTestCase):
    """The versions are checked before any work (contract, "Operations")."""

    def patch(self, current: str, wanted: str, status: Status = Status.RUNNING) -> ErrorCode | None:
        self.world = World()
        self.world.docker.present |= {f"g:{current}": FakeImage(), f"g:{wanted}": FakeImage()}
        self.world.do(request(image_ref=f"g:{current}"))
        if status is Status.STOPPED:
            self.world.do(request(kind=OpKind.STOP))
        self.world.forget()
        return self.world.do(request(kind=OpKind.PATCH, image_ref=f"g:{wanted}")).error_code

    def test_only_the_patch_number_may_differ(self) -> None:
        for current, wanted, code in (
            ("1.0.0", "1.0.1", None),
            ("1.0.5", "1.0.1", None),
            ("v1.0.0", "1.0.1", None),
            ("1.0.0-rc.1", "1.0.0", None),
            ("1.0.0", "1.1.0", ErrorCode.SEMVER_PATCH_ONLY),
            ("1.0.0", "2.0.0", ErrorCode.SEMVER_PATCH_ONLY),
            ("1.0.0", "latest", ErrorCode.IMAGE_REF_NOT_SEMVER),
            ("latest", "1.0.0", ErrorCode.IMAGE_REF_NOT_SEMVER),
            ("1.0.0", "1.0", ErrorCode.IMAGE_REF_NOT_SEMVER),
            ("1.0.0", "01.0.1", ErrorCode.IMAGE_REF_NOT_SEMVER),
        ):
            for status in (Status.RUNNING, Status.STOPPED):
                with self.subTest(current=current, wanted=wanted, status=status):
                    self.assertEqual(self.patch(current, wanted, status), code)
                    if code:
                        self.assertEqual(self.world.docker.calls, [])

    def test_the_same_image_on_a_running_game_is_a_replay(self) -> None:
        self.assertIs(self.patch("1.0.0", "1.0.0"), NO_OP)
        self.assertEqual(self.world.docker.calls, [])

    def test_the_same_image_on_a_stopped_game_starts_it(self) -> None:
        self.assertIsNone(self.patch("1.0.0", "1.0.0", Status.STOPPED))
        self.assertIs(self.world.known().status, Status.RUNNING)

    def test_an_image_without_a_tag_is_no_version(self) -> None:
        self.world.bring(Status.RUNNING)
        for image_ref in ("galaxy/game", f"galaxy/game@sha256:{'a' * 64}"):
            with self.subTest(image_ref):
                completion = self.world.do(request(kind=OpKind.PATCH, image_ref=image_ref))
                self.assertIs(completion.error_code, ErrorCode.IMAGE_REF_NOT_SEMVER)

    def test_a_malformed_image_is_a_bad_configuration(self) -> None:
        self.world.bring(Status.RUNNING)
        completion = self.world.do(request(kind=OpKind.PATCH, image_ref="NOT GOOD"))
        self.assertIs(completion.error_code, ErrorCode.START_CONFIG_INVALID)
        self.assert_consistent()
