"""The OpenAPI document and the server agree: each documented outcome is provoked, each route is documented."""

from __future__ import annotations

import json
import logging
import unittest
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rtmanager import http
from rtmanager.config.parsers import Address
from rtmanager.domain import operation
from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.findings import RestartCause
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.operation import LogEntry, OpKind
from rtmanager.domain.operation import Outcome as Ended
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import Status
from rtmanager.fakes.store import ManualClock, MemoryHistories, MemoryStore, PlannedRestart
from rtmanager.http.api import Api
from rtmanager.http.server import HttpServer
from rtmanager.metrics import Metrics
from rtmanager.ports.store import OperationResult
from rtmanager.tests.making import log_entry
from rtmanager.tests.test_http_api import NOW, RecordedCalls, StoredRecords, raiser, record_of

try:
    import yaml
    from openapi_spec_validator import validate

    from rtmanager.tests.openapi_replay import Case, Replay, example_faults
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}: it comes with the extra dev: make tools") from missing

IMAGE = b'{"image_ref": "galaxy/game:1.0.1"}'
READS_OF_A_GAME = ("internalGetRuntime", "internalGetRuntimeHealth", "internalListRuntimeOperations")
READS = ("internalReadyz", "internalMetrics", "internalListRuntimes", *READS_OF_A_GAME)
#: Operations that need no dependency.
ALWAYS_THERE = ("internalMetrics",)
#: A valid body for each operation that changes something.
BODIES: Mapping[str, bytes | None] = {
    "internalStartRuntime": IMAGE,
    "internalStopRuntime": b'{"reason": "finished"}',
    "internalRestartRuntime": None,
    "internalPatchRuntime": IMAGE,
    "internalCleanupRuntimeContainer": None,
}
STARTING = ("internalStartRuntime", "internalRestartRuntime", "internalPatchRuntime")


@lru_cache
def document() -> dict[str, Any]:
    """The document that the package contains."""
    text = Path(http.__file__).with_name("openapi.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


class Service:
    """A running server over stores in memory, and the ways to make it fail."""

    def __init__(self) -> None:
        self.calls, self.records = RecordedCalls(), StoredRecords()
        self.store = MemoryStore(ManualClock())
        self.metrics = Metrics()
        self.metrics.gauge("games", "How many there are", "status").set(1, "running")
        self.missing: Mapping[str, str] = {}
        self.broken: Exception | None = None
        logger = logging.Logger("openapi-test")
        logger.addHandler(logging.NullHandler())
        api = Api(
            calls=self.calls,
            records=self.records,
            histories=MemoryHistories(self.store),
            readiness=self.readiness,
            metrics=self.rendered,
            logger=logger,
        )
        self.routes = set(api.routes)
        self.server = HttpServer(Address("127.0.0.1", 0), api.handle, logger=logger)
        self.server.start()
        host, port = self.server.address
        self.base_url = f"http://{host}:{port}"
        self.reset()

    def readiness(self) -> Mapping[str, str]:
        if self.broken is not None:
            raise self.broken
        return self.missing

    def rendered(self) -> str:
        if self.broken is not None:
            raise self.broken
        return self.metrics.render()

    def reset(self) -> None:
        """Restore all dependencies. Game g1 runs, g2 crashed, a third is removed; the start of g4 failed."""
        self.missing, self.broken, self.records.broken = {}, None, None
        self.store.trouble.available, self.store.trouble.before = True, None
        self.store.write_event(started("g1"))
        self.store.write_event(exited("g2"))
        self.store.last_exits["g2"] = LastExit("c-g2", 139, False, NOW, "no more turns\n")
        self.store.planned_restarts["g2"] = PlannedRestart("c-g2", NOW, RestartCause.CRASH)
        self.store.log[:] = [log_entry(), log_entry(error_code=ErrorCode.REPLAY_NO_OP), failed_start("g4")]
        self.calls.end = lambda _: OperationResult(Ended.SUCCESS, None, "")
        removed = replace(record_of("g3", Status.REMOVED), current_container_id=None)
        self.records.by_id = {"g1": record_of("g1"), "g2": record_of("g2", Status.STOPPED), "g3": removed}

    def operations_end(self, code: ErrorCode) -> Callable[[], None]:
        """From now on every operation fails with `code`."""
        verdict = OperationResult(Ended.FAILURE, code, "as the test asks")

        def prepare() -> None:
            self.calls.end = lambda _: verdict

        return prepare

    def start_checks_the_game_id(self) -> None:
        """Make a start with a malformed id fail as the operation does."""

        def end(request: operation.Request) -> OperationResult:
            assert request.kind is OpKind.START
            return OperationResult(
                Ended.FAILURE, ErrorCode.START_CONFIG_INVALID, f"game_id {request.game_id} is malformed"
            )

        self.calls.end = end

    def lose_everything(self) -> None:
        """No dependency answers."""
        gone = Unavailable("postgres", "PostgreSQL does not answer")
        self.missing, self.records.broken, self.calls.end = {"postgres": "gone"}, gone, raiser(gone)
        self.store.trouble.available = False

    def break_down(self) -> None:
        """Make every dependency raise an unforeseen error."""
        defect = ZeroDivisionError("a defect")
        self.broken, self.records.broken, self.calls.end = defect, defect, raiser(defect)

        def before(_name: str) -> None:
            raise defect

        self.store.trouble.before = before


def cases(service: Service) -> list[Case]:
    """Every documented outcome at least once."""
    return [*_successes(), *_refusals(), *_failures(service)]


def _successes() -> list[Case]:
    return [
        Case("internalHealthz", 200),
        Case("internalReadyz", 200),
        Case("internalListRuntimes", 200),
        Case("internalListRuntimes", 200, query={"status": "running", "limit": "1000"}),
        Case("internalListRuntimes", 200, query={"limit": "1", "cursor": "ZzE"}),
        Case("internalGetRuntime", 200, headers={"X-Request-Id": "r-1", "X-Galaxy-Caller": "gm"}),
        Case("internalGetRuntime", 200, game_id="g3"),
        *(Case("internalGetRuntimeHealth", 200, game_id=game_id) for game_id in ("g1", "g2", "g3")),
        *(Case("internalListRuntimeOperations", 200, game_id=game_id) for game_id in ("g1", "g3", "g4")),
        Case("internalListRuntimeOperations", 200, query={"limit": "1", "cursor": "PDM"}),
        Case("internalMetrics", 200),
        *(Case(name, 200, body=body, headers={"X-Galaxy-Caller": "gm"}) for name, body in BODIES.items()),
        Case("internalRestartRuntime", 200, body=b"{}"),
    ]


def _refusals() -> list[Case]:
    """Requests that violate the document or HTTP are `invalid_request`."""
    refused: list[Case] = [
        *(Case(name, 400, query={"x": "1"}, conforms=False) for name in (*READS[1:], *BODIES)),
        *(Case(name, 400, body=b"{}", conforms=False) for name in ("internalHealthz", *READS)),
        *(
            Case("internalListRuntimes", 400, query={name: value}, conforms=False)
            for name, value in (("limit", "0"), ("limit", "1001"), ("limit", "x"), ("status", "dead"), ("cursor", "!"))
        ),
        *(
            Case("internalListRuntimeOperations", 400, query={name: value}, conforms=False)
            for name, value in (
                ("limit", "0"),
                ("limit", "1001"),
                ("status", "running"),
                ("cursor", "!"),
                ("cursor", ""),
            )
        ),
        *(
            Case(name, 400, body=body, game_id="a.b", conforms=False)
            for name, body in {**dict.fromkeys(READS_OF_A_GAME), **BODIES}.items()
            if name != "internalStartRuntime"
        ),
        *(
            Case(name, 400, body=body, conforms=False)
            for name, good in BODIES.items()
            for body in (b"[]", b"{", b'{"x": 1}', b'{"image_ref": 1}', b'{"reason": "bored"}')
            if good is not None or name == "internalRestartRuntime"
        ),
        *(Case(name, 400, body=None, conforms=False) for name, body in BODIES.items() if body is not None),
        Case("internalCleanupRuntimeContainer", 400, body=b"{}", conforms=False),
    ]
    too_large = {"X-Padding": "x" * 20_000}
    unread = [
        Case(name, 431, documented_as="default", body=body, headers=too_large)
        for name, body in {"internalHealthz": None, **dict.fromkeys(READS), **BODIES}.items()
    ]
    foreign = [
        Case(name, status, body=body, headers=headers)
        for name, body in {"internalHealthz": None, **dict.fromkeys(READS), **BODIES}.items()
        for status, headers in (
            (403, {"Origin": "https://evil.example"}),
            (403, {"Origin": "null"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (421, {"Host": "evil.example"}),
        )
        if status == 403 or name not in ("internalHealthz", "internalReadyz")
    ]
    untyped = [
        Case(name, 415, body=body or b"{}", headers={"Content-Type": kind})
        for name, body in BODIES.items()
        if name != "internalCleanupRuntimeContainer"
        for kind in ("text/plain", "")
    ]
    return [replace(case, code="invalid_request") for case in (*refused, *unread, *foreign, *untyped)]


def _failures(service: Service) -> list[Case]:
    reads = dict.fromkeys(READS)
    ends = {
        ErrorCode.NOT_FOUND: [name for name in BODIES if name != "internalStartRuntime"],
        ErrorCode.CONFLICT: list(BODIES),
        ErrorCode.START_CONFIG_INVALID: STARTING,
        ErrorCode.IMAGE_PULL_FAILED: STARTING,
        ErrorCode.CONTAINER_START_FAILED: STARTING,
        ErrorCode.IMAGE_REF_NOT_SEMVER: ["internalPatchRuntime"],
        ErrorCode.SEMVER_PATCH_ONLY: ["internalPatchRuntime"],
    }
    statuses = {ErrorCode.NOT_FOUND: 404, ErrorCode.CONFLICT: 409, ErrorCode.SEMVER_PATCH_ONLY: 409}
    statuses |= {ErrorCode.IMAGE_PULL_FAILED: 500, ErrorCode.CONTAINER_START_FAILED: 500}
    return [
        *(Case(name, 404, "not_found", game_id="g9") for name in READS_OF_A_GAME),
        *(
            Case(name, statuses.get(code, 400), code, body=BODIES[name], prepare=service.operations_end(code))
            for code, names in ends.items()
            for name in names
        ),
        Case(
            "internalStartRuntime",
            400,
            "start_config_invalid",
            game_id="a.b",
            body=IMAGE,
            conforms=False,
            prepare=service.start_checks_the_game_id,
        ),
        *(
            Case(name, 503, "service_unavailable", body=body, prepare=service.lose_everything)
            for name, body in {**reads, **BODIES}.items()
            if name not in ALWAYS_THERE
        ),
        *(
            Case(name, 500, "internal_error", body=body, prepare=service.break_down)
            for name, body in {**reads, **BODIES}.items()
        ),
    ]


def started(game_id: str) -> HealthEvent:
    """The event of a start."""
    details = {"image_ref": "galaxy/game:1.0.0"}
    return HealthEvent(game_id, "c1", EventType.CONTAINER_STARTED, HealthSource.INSPECT, NOW, details)


def exited(game_id: str) -> HealthEvent:
    """The event of a crash."""
    details = {"exit_code": 139, "oom": False}
    return HealthEvent(
        game_id, "c1", EventType.CONTAINER_EXITED, HealthSource.DOCKER_EVENT, NOW, details, published=False
    )


def failed_start(game_id: str) -> LogEntry:
    """The log row of a start whose image cannot be pulled."""
    return log_entry(
        game_id,
        outcome=Ended.FAILURE,
        image_ref="galaxy/game:9.9.9",
        error_code=ErrorCode.IMAGE_PULL_FAILED,
        error_message="the registry does not know it",
    )


class OpenApiTest(unittest.TestCase):
    service: Service
    document: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.server.stop, 1.0)
        cls.document = document()

    def test_the_document_is_valid(self) -> None:
        validate(self.document)

    def test_each_documented_outcome_can_be_provoked_and_is_as_documented(self) -> None:
        replay = Replay(self.document, self.service.base_url)
        for case in cases(self.service):
            with self.subTest(outcome=case.outcome, body=case.body, query=case.query):
                self.service.reset()
                replay.play(case)
        self.assertEqual(replay.unprovoked(), set(), "documented, but no case provokes it")

    def test_server_and_document_have_the_same_routes(self) -> None:
        self.assertEqual(Replay(self.document, self.service.base_url).routes, self.service.routes)

    def test_every_example_conforms_to_its_schema(self) -> None:
        for name, found in Replay(self.document, self.service.base_url).operations.items():
            parts = {"request": found.content.get("requestBody", {}), **found.content["responses"]}
            for part, content in parts.items():
                with self.subTest(operation=name, part=part):
                    self.assertEqual(list(example_faults(content)), [])

    def test_the_document_has_every_error_code_and_no_other(self) -> None:
        codes = set(ErrorCode) - {ErrorCode.REPLAY_NO_OP}
        self.assertEqual(set(self.document["components"]["schemas"]["ErrorCode"]["enum"]), codes)


class ReplayTest(unittest.TestCase):
    """The replay detects each kind of fault."""

    def setUp(self) -> None:
        self.service = Service()
        self.addCleanup(self.service.server.stop, 1.0)
        self.document = json.loads(json.dumps(document()))  # a copy without shared parts

    def replay(self) -> Replay:
        return Replay(self.document, self.service.base_url)

    def assert_noticed(self, expected: str, case: Case) -> None:
        with self.assertRaisesRegex(AssertionError, expected):
            self.replay().play(case)

    def test_a_field_too_many_or_too_few_is_noticed(self) -> None:
        record = self.document["components"]["schemas"]["RuntimeRecord"]
        del record["properties"]["state_path"]
        self.assert_noticed("state_path", Case("internalGetRuntime", 200))
        record["properties"]["state_path"] = {"type": "string"}
        record["required"].append("colour")
        self.assert_noticed("colour", Case("internalGetRuntime", 200))

    def test_another_status_code_or_header_is_noticed(self) -> None:
        self.assert_noticed("expected status 200", Case("internalGetRuntime", 200, game_id="g9"))
        self.assert_noticed("not documented", Case("internalGetRuntime", 409, "conflict"))
        conflict = self.service.operations_end(ErrorCode.NOT_FOUND)
        self.assert_noticed("expected status 409", Case("internalRestartRuntime", 409, "conflict", prepare=conflict))
        self.document["components"]["headers"]["RequestId"]["schema"]["pattern"] = "^z$"
        self.assert_noticed("X-Request-Id", Case("internalGetRuntime", 200))

    def test_a_document_that_is_looser_or_stricter_than_the_server_is_noticed(self) -> None:
        self.assert_noticed("allows a request", Case("internalGetRuntime", 400, "invalid_request", conforms=False))
        self.assert_noticed("forbids the request", Case("internalGetRuntime", 200, query={"x": "1"}))
        self.assert_noticed("forbids the request", Case("internalStopRuntime", 200))

    def test_another_content_type_than_the_documents_is_noticed(self) -> None:
        metrics = self.document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
        metrics["text/plain"] = metrics.pop("text/plain; version=0.0.4; charset=utf-8")
        self.assert_noticed("Content-Type is text/plain; version", Case("internalMetrics", 200))
        metrics["application/json"] = metrics.pop("text/plain")
        self.assert_noticed("Content-Type is text/plain; version", Case("internalMetrics", 200))

    def test_an_outcome_that_nothing_provokes_is_noticed(self) -> None:
        replay = self.replay()
        replay.play(Case("internalGetRuntime", 200))
        left = {outcome for outcome in replay.unprovoked() if outcome.operation_id == "internalGetRuntime"}
        self.assertEqual({outcome.status for outcome in left}, {"400", "403", "404", "421", "500", "503", "default"})

    def test_a_code_without_example_is_noticed(self) -> None:
        del self.document["components"]["responses"]["StartFailed"]["content"]["application/json"]["examples"][
            "image_pull_failed"
        ]
        with self.assertRaisesRegex(AssertionError, "image_pull_failed"):
            self.replay().documented  # noqa: B018
