"""An image that the operator's policy refuses is not started, and nothing is called for it."""

from __future__ import annotations

from dataclasses import replace

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.findings import RestartCause
from rtmanager.domain.image_policy import ImagePolicy, parse_patterns
from rtmanager.domain.operation import Operation, OpKind, Outcome, Request
from rtmanager.domain.record import Status
from rtmanager.domain.restarts import restart_request
from rtmanager.tests.making import IMAGE, IMAGE_2, request
from rtmanager.tests.operating import WorldTestCase, job_request

REFUSED = ErrorCode.START_CONFIG_INVALID
OTHER = ImagePolicy(parse_patterns("registry.example/**"))
FIRST_ONLY = ImagePolicy(parse_patterns(f"{IMAGE} registry.example/**"))
NEAR = "127.0.0.1:5000/galaxy/game:1.0.1"


class PolicyTest(WorldTestCase):
    def refuse(self, wanted: Request, name: str = "RTMANAGER_IMAGE_ALLOW") -> None:
        """Run a request that must be refused: nothing is called, record and containers stay."""
        before = self.world.record(), self.world.docker.containers
        called, queries = len(self.world.docker.calls), len(self.world.lobby_queries)
        completion = self.world.do(wanted)
        self.assertEqual((completion.outcome, completion.error_code), (Outcome.FAILURE, REFUSED))
        self.assertIn(name, completion.error_message)
        self.assertEqual((self.world.record(), self.world.docker.containers), before)
        self.assertEqual(self.world.docker.calls[called:], [])
        self.assertEqual(len(self.world.lobby_queries), queries)

    def claim_again(self, operation: Operation) -> Operation:
        """Claim an operation for its second try, as after a crash."""
        self.world.clock.advance(1)
        self.world.queue.defer(operation, delay_s=0, why="it crashed")
        [again] = self.world.queue.claim(1)
        return again

    def test_a_start_by_a_job_or_a_call_is_refused_before_anything_is_called(self) -> None:
        for policy, ref in ((OTHER, IMAGE), (ImagePolicy(), NEAR), (FIRST_ONLY, NEAR), (FIRST_ONLY, IMAGE_2)):
            self.world.allow(policy)
            with self.subTest(ref):
                self.refuse(request(image_ref=ref))
                self.refuse(job_request(image_ref=ref))
        self.assertEqual(self.world.results(), [("failure", REFUSED)] * 4)
        self.world.allow(replace(FIRST_ONLY, require_digest=True))
        self.refuse(request(image_ref=IMAGE), "RTMANAGER_IMAGE_REQUIRE_DIGEST")

    def test_a_patch_is_refused_before_versions_are_compared(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.allow(FIRST_ONLY)
        self.refuse(request(kind=OpKind.PATCH, image_ref=IMAGE_2))
        self.refuse(request(kind=OpKind.PATCH, image_ref=NEAR))
        self.refuse(request(kind=OpKind.PATCH, image_ref="galaxy/game:latest"))

    def test_a_restart_is_refused_and_the_game_runs_on(self) -> None:
        for status in (Status.RUNNING, Status.STOPPED):
            self.world.bring(status)
            self.world.allow(OTHER)
            self.refuse(request(kind=OpKind.RESTART))
        self.assert_consistent()

    def test_a_start_of_another_image_beside_a_running_one_is_refused_and_one_of_the_same_is_a_replay(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.allow(OTHER)
        self.refuse(request(image_ref=IMAGE_2))
        for kind in (OpKind.START, OpKind.PATCH):
            self.assertEqual(self.world.do(request(kind=kind, image_ref=IMAGE)).error_code, ErrorCode.REPLAY_NO_OP)

    def test_a_stop_and_a_cleanup_do_not_consult_it(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.allow(OTHER)
        self.assertIs(self.world.do(request(kind=OpKind.STOP, reason="finished")).outcome, Outcome.SUCCESS)
        self.assertIs(self.world.do(request(kind=OpKind.CLEANUP)).outcome, Outcome.SUCCESS)

    def test_the_managers_own_restarts_do_not_consult_it(self) -> None:
        for cause in (RestartCause.OUTAGE, RestartCause.CRASH, RestartCause.PROBE):
            self.world.bring(Status.STOPPED)
            self.world.allow(OTHER)
            container_id = self.world.known().current_container_id or ""
            wanted = restart_request("g1", container_id, cause)
            if wanted.kind is OpKind.START:
                wanted = replace(wanted, image_ref=IMAGE)
            with self.subTest(cause):
                self.assertIs(self.world.do(wanted).outcome, Outcome.SUCCESS)
            self.world.allow(ImagePolicy())
            self.world.do(request(kind=OpKind.STOP, reason="finished"))

    def test_a_restart_that_has_stopped_its_game_is_finished_whatever_the_policy_is_by_now(self) -> None:
        self.world.bring(Status.RUNNING)
        operation = self.world.claim(request(kind=OpKind.RESTART))
        self.world.runtime.raises["promote"] = Unavailable("docker", "no answer")
        with self.assertRaises(Unavailable):
            self.world.operator.run(operation)
        self.assertEqual(self.world.running(), [])
        self.world.runtime.raises.clear()
        self.world.allow(OTHER)
        self.assertIs(self.world.operator.run(self.claim_again(operation)).outcome, Outcome.SUCCESS)

    def test_a_start_whose_container_runs_is_finished_whatever_the_policy_is_by_now(self) -> None:
        operation = self.world.claim(request(image_ref=IMAGE))
        self.assertIsNotNone(self.world.operator.run(operation).launched)
        self.world.allow(OTHER)
        self.assertIs(self.world.operator.run(self.claim_again(operation)).outcome, Outcome.SUCCESS)

    def test_a_retried_operation_that_has_changed_nothing_is_refused(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.allow(OTHER)
        for wanted in (request(kind=OpKind.RESTART), request("g2", image_ref=IMAGE)):
            operation = self.world.claim(wanted)
            completion = self.world.operator.run(self.claim_again(operation))
            self.assertEqual(completion.error_code, REFUSED)
        self.assertEqual(len(self.world.running()), 1)
