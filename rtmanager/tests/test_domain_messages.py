"""The messages that the manager publishes, field by field (contract, "Results out")."""

from __future__ import annotations

import json
import unittest
from datetime import timedelta

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import SNAPSHOT_STATUS, EventType, HealthEvent, HealthSource, HealthStatus
from rtmanager.domain.messages import (
    INTENT_OF,
    Message,
    Stream,
    dead_letter,
    epoch_ms,
    health_message,
    intent,
    intents_summary,
    job_result,
    limited_type,
)
from rtmanager.tests.making import NOW

NOW_MS = "1767225600000"


class JobResultTest(unittest.TestCase):
    def test_a_success_has_all_six_fields_and_no_error(self) -> None:
        message = job_result("g1", container_id="c1", endpoint="http://galaxy-game-g1:8080", code=None, message="")
        self.assertIs(message.stream, Stream.JOB_RESULTS)
        self.assertEqual(
            message.fields,
            {
                "game_id": "g1",
                "outcome": "success",
                "container_id": "c1",
                "engine_endpoint": "http://galaxy-game-g1:8080",
                "error_code": "",
                "error_message": "",
            },
        )

    def test_a_failure_has_a_code_and_empty_strings_where_there_is_nothing(self) -> None:
        for code in set(ErrorCode) - {ErrorCode.REPLAY_NO_OP}:
            with self.subTest(code):
                fields = job_result("g1", container_id=None, endpoint="", code=code, message="why").fields
                self.assertEqual((fields["outcome"], fields["error_code"]), ("failure", code.value))
                self.assertEqual((fields["container_id"], fields["engine_endpoint"]), ("", ""))

    def test_a_replay_is_a_success_with_a_code(self) -> None:
        fields = job_result("g1", container_id="c1", endpoint="e", code=ErrorCode.REPLAY_NO_OP, message="runs").fields
        self.assertEqual((fields["outcome"], fields["error_code"]), ("success", "replay_no_op"))


class HealthMessageTest(unittest.TestCase):
    def test_details_are_json_and_never_empty_text(self) -> None:
        event = HealthEvent("g1", "c1", EventType.CONTAINER_DISAPPEARED, HealthSource.INSPECT, NOW)
        self.assertEqual(
            health_message(event).fields,
            {
                "game_id": "g1",
                "container_id": "c1",
                "event_type": "container_disappeared",
                "occurred_at_ms": NOW_MS,
                "details": "{}",
            },
        )
        self.assertIs(health_message(event).stream, Stream.HEALTH_EVENTS)

    def test_details_keep_their_types(self) -> None:
        details = {"exit_code": 137, "oom": True}
        event = HealthEvent("g1", "c1", EventType.CONTAINER_EXITED, HealthSource.DOCKER_EVENT, NOW, details)
        self.assertEqual(json.loads(health_message(event).fields["details"]), details)

    def test_every_event_leaves_a_snapshot_and_two_of_them_a_healthy_one(self) -> None:
        self.assertEqual(set(SNAPSHOT_STATUS), set(EventType))
        healthy = {event for event, status in SNAPSHOT_STATUS.items() if status is HealthStatus.HEALTHY}
        self.assertEqual(healthy, {EventType.CONTAINER_STARTED, EventType.PROBE_RECOVERED})
        self.assertEqual(set(SNAPSHOT_STATUS.values()), set(HealthStatus))


class IntentTest(unittest.TestCase):
    def test_an_intent_has_who_what_and_why(self) -> None:
        message = intent(
            ErrorCode.IMAGE_PULL_FAILED,
            game_id="g1",
            image_ref="galaxy/game:9.9.9",
            message="no such image",
            source_ref="runtime:start_jobs:5-0",
            attempted_at=NOW,
            now=NOW + timedelta(seconds=2),
        )
        fields = dict(message.fields)
        self.assertEqual(
            json.loads(fields.pop("payload_json")),
            {
                "game_id": "g1",
                "image_ref": "galaxy/game:9.9.9",
                "error_code": "image_pull_failed",
                "error_message": "no such image",
                "attempted_at_ms": 1767225600000,
            },
        )
        self.assertEqual(
            fields,
            {
                "notification_type": "runtime.image_pull_failed",
                "producer": "runtime_manager",
                "audience_kind": "admin_email",
                "idempotency_key": "runtime_manager:runtime.image_pull_failed:g1:runtime:start_jobs:5-0",
                "occurred_at_ms": "1767225602000",
            },
        )
        self.assertIs(message.stream, Stream.NOTIFICATION_INTENTS)

    def test_exactly_the_three_failures_of_a_start_have_an_intent(self) -> None:
        self.assertEqual(
            {code.value: name for code, name in INTENT_OF.items()},
            {
                "image_pull_failed": "runtime.image_pull_failed",
                "container_start_failed": "runtime.container_start_failed",
                "start_config_invalid": "runtime.start_config_invalid",
            },
        )


class BoundsTest(unittest.TestCase):
    """External text never makes a message large."""

    LONG = "x" * 1_000_000

    def test_a_result_and_an_intent_have_bounded_texts(self) -> None:
        result = job_result("g1", container_id=None, endpoint="", code=ErrorCode.IMAGE_PULL_FAILED, message=self.LONG)
        self.assertRegex(result.fields["error_message"], r"^x{4000}… \(1000000 characters\)$")
        message = intent(
            ErrorCode.IMAGE_PULL_FAILED,
            game_id="g1",
            image_ref=self.LONG,
            message=self.LONG,
            source_ref="r",
            attempted_at=NOW,
            now=NOW,
        )
        self.assertLess(len(message.fields["payload_json"]), 10_000)

    def test_the_details_of_a_health_event_are_bounded_and_keep_their_types(self) -> None:
        details = {
            "last_error": self.LONG,
            "last_status": None,
            "consecutive_failures": 3,
            "more": {"deep": [self.LONG]},
        }
        event = HealthEvent("g1", "c1", EventType.PROBE_FAILED, HealthSource.PROBE, NOW, details)
        published = json.loads(health_message(event).fields["details"])
        self.assertEqual((published["last_status"], published["consecutive_failures"]), (None, 3))
        self.assertLess(len(published["last_error"]) + len(published["more"]["deep"][0]), 10_000)


class SummaryTest(unittest.TestCase):
    def failed(self, game_id: str = "g1", source_ref: str = "runtime:start_jobs:5-0", text: str = "why") -> Message:
        code = ErrorCode.START_CONFIG_INVALID
        return intent(
            code, game_id=game_id, image_ref="x", message=text, source_ref=source_ref, attempted_at=NOW, now=NOW
        )

    def test_a_summary_has_the_fields_of_an_intent_and_carries_the_number(self) -> None:
        first, began_at = self.failed(), NOW + timedelta(seconds=1)
        summary = intents_summary(
            "runtime.start_config_invalid", left_out=812, first=first.fields, began_at=began_at, now=NOW
        )
        self.assertEqual(summary.fields.keys(), first.fields.keys())
        payload, before = json.loads(summary.fields["payload_json"]), json.loads(first.fields["payload_json"])
        self.assertEqual(payload.keys(), before.keys())
        self.assertTrue(payload["error_message"].startswith("812 more failures"))
        key = "runtime_manager:runtime.start_config_invalid:summary:1767225601000"
        self.assertEqual(summary.fields["idempotency_key"], key)

    def test_a_summary_is_distinguished_from_every_other_intent_whatever_its_game_is_called(self) -> None:
        summary = intents_summary(
            "runtime.start_config_invalid", left_out=1, first=self.failed().fields, began_at=NOW, now=NOW
        )
        self.assertIsNone(limited_type(summary))
        for game_id in ("g1", "summary", "summary:1767225600000", "a:summary:1", ""):
            for source_ref in ("runtime:start_jobs:5-0", "rest:1767225600000", "rest:x"):
                message = self.failed(game_id, source_ref)
                self.assertEqual(limited_type(message), "runtime.start_config_invalid", message.fields)

    def test_a_first_one_that_cannot_be_read_keeps_no_number_back(self) -> None:
        for payload in ("", '{"game_id": "g', "[]", "3"):
            summary = intents_summary("t", left_out=7, first={"payload_json": payload}, began_at=NOW, now=NOW)
            text = json.loads(summary.fields["payload_json"])["error_message"]
            self.assertTrue(text.startswith("7 more failures"), text)

    def test_other_messages_have_no_limit(self) -> None:
        self.assertIsNone(limited_type(job_result("g", container_id=None, endpoint="", code=None, message="")))


class DeadLetterTest(unittest.TestCase):
    def test_a_dead_letter_has_its_origin_and_keeps_its_fields(self) -> None:
        message = dead_letter("runtime:stop_jobs", "5-1", {"röason": "x", "": ""}, "no game_id")
        self.assertIs(message.stream, Stream.DEAD_LETTERS)
        fields = dict(message.fields)
        self.assertEqual(json.loads(fields.pop("fields")), {"röason": "x", "": ""})
        self.assertEqual(fields, {"stream": "runtime:stop_jobs", "entry_id": "5-1", "reason": "no game_id"})


class WireTest(unittest.TestCase):
    def test_times_are_whole_milliseconds(self) -> None:
        self.assertEqual(epoch_ms(NOW + timedelta(microseconds=1600)), 1767225600002)

    def test_the_codes_are_those_of_the_contract(self) -> None:
        self.assertEqual(
            {code.value for code in ErrorCode},
            {
                "invalid_request",
                "start_config_invalid",
                "image_ref_not_semver",
                "not_found",
                "conflict",
                "semver_patch_only",
                "service_unavailable",
                "docker_unavailable",
                "internal_error",
                "image_pull_failed",
                "container_start_failed",
                "replay_no_op",
            },
        )
