"""Contract tests: how every `ContainerRuntime` reports refusals; run against the fake and Docker's adapter.

A test class mixes `AnswersContract` in and defines how its runtime gets refusals. Container c2 runs; in Docker, c1
has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rtmanager.domain.container import ContainerSpec, Limits
from rtmanager.domain.errors import ErrorCode, FinalAnswer, RuntimeManagerError, TemporaryAnswer
from rtmanager.fakes import Meant
from rtmanager.fakes.runtime import CHANGING
from rtmanager.ports.runtime import ContainerRuntime, ImageUnavailable, LaunchFailed, PullPolicy
from rtmanager.tests.making import IMAGE, NETWORK

if TYPE_CHECKING:
    from unittest import TestCase
else:  # a mixin: only its concrete subclasses are test cases
    TestCase = object

SPEC = ContainerSpec(
    game_id="g1",
    image_ref=IMAGE,
    network=NETWORK,
    limits=Limits(1.0, 64 << 20, 32),
    state_path="/srv/g1",
    mount_path="/var/lib/galaxy-game",
    environment={},
    started_at_ms=0,
    log_driver="json-file",
    log_options={},
)

#: Each method that reports a refusal by an error: a call, what a final answer raises, and the error code of an
#: operation that gets temporary answers for too long.
METHODS: Mapping[str, tuple[Callable[[ContainerRuntime], object], type[RuntimeManagerError], ErrorCode]] = {
    "network_exists": (lambda it: it.network_exists(NETWORK), FinalAnswer, ErrorCode.INTERNAL_ERROR),
    "ensure_image": (
        lambda it: it.ensure_image(IMAGE, PullPolicy.IF_MISSING),
        ImageUnavailable,
        ErrorCode.IMAGE_PULL_FAILED,
    ),
    "launch": (lambda it: it.launch(SPEC), LaunchFailed, ErrorCode.CONTAINER_START_FAILED),
    "create_next": (lambda it: it.create_next(SPEC), LaunchFailed, ErrorCode.CONTAINER_START_FAILED),
    "promote": (lambda it: it.promote("c3", SPEC), LaunchFailed, ErrorCode.CONTAINER_START_FAILED),
    "stop": (lambda it: it.stop("c2", 1), FinalAnswer, ErrorCode.INTERNAL_ERROR),
    "remove": (lambda it: it.remove("c1"), FinalAnswer, ErrorCode.INTERNAL_ERROR),
    "inspect": (lambda it: it.inspect("c1"), FinalAnswer, ErrorCode.INTERNAL_ERROR),
    "list_games": (lambda it: it.list_games(), FinalAnswer, ErrorCode.INTERNAL_ERROR),
}


class AnswersContract(TestCase):
    runtime: ContainerRuntime

    def refuse(self, method: str, meant: Meant) -> None:
        """Refuse calls of `method` from now on."""
        raise NotImplementedError

    def stop_refusing(self, method: str) -> None:
        """End the refusals of `method`; `log_tail` then answers for a container without a log."""
        raise NotImplementedError

    def test_a_final_answer_is_an_error_of_the_method_or_is_marked_as_one(self) -> None:
        for method, (call, error, _) in METHODS.items():
            with self.subTest(method):
                self.refuse(method, Meant.FINAL)
                with self.assertRaises(error) as caught:
                    call(self.runtime)
                self.assertNotIsInstance(caught.exception, TemporaryAnswer)
                self.stop_refusing(method)

    def test_a_temporary_answer_has_a_name_and_the_code_it_ends_with_some_time(self) -> None:
        for method, (call, _, code) in METHODS.items():
            with self.subTest(method):
                self.refuse(method, Meant.TEMPORARY)
                answers = set()
                for _ in range(2):
                    with self.assertRaises(TemporaryAnswer) as caught:
                        call(self.runtime)
                    answers.add(caught.exception.answer)
                    self.assertEqual((caught.exception.dependency, caught.exception.code), ("docker", code))
                    changes = method in CHANGING
                    self.assertEqual(caught.exception.untouched, not changes)
                self.assertEqual(len(answers), 1)
                self.stop_refusing(method)

    def test_a_log_that_is_refused_is_replaced_by_the_reason(self) -> None:
        for meant in Meant:
            self.refuse("log_tail", meant)
            self.assertRegex(self.runtime.log_tail("c1"), r"^\(the log cannot be read: .+\)$")
            self.stop_refusing("log_tail")
