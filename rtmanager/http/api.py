"""The internal REST API (contract, "REST"): the table of its endpoints, and what is common to all of them.

`Api.handle` maps a request to a response, without sockets. It answers every request, also when a handler has a defect.
Every answer carries `X-Request-Id`: the caller's id if that is safe in a log and in a key, otherwise a new one. The
operation log has it in `source_ref`, as `rest:<id>`.
"""

from __future__ import annotations

import itertools
import logging
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from rtmanager.domain.errors import ErrorCode, FinalAnswer, Unavailable
from rtmanager.domain.game import shown
from rtmanager.domain.operation import OpKind
from rtmanager.http.access import READS, Access, Caller
from rtmanager.http.audit import Audit
from rtmanager.http.authority import foreign_origin, host_is_ours
from rtmanager.http.bodies import check_json, read_query
from rtmanager.http.commands import Commands, SyncRequests
from rtmanager.http.limits import LaneLimits
from rtmanager.http.messages import HttpError, Request, Response, failure, invalid
from rtmanager.http.queries import Queries
from rtmanager.http.refusals import StoreRefusals
from rtmanager.http.request_context import RequestContext
from rtmanager.http.routes import Router
from rtmanager.ports.store import GameBusy, Histories, Records

RUNTIMES = "/api/v1/internal/runtimes"
#: Callers that may wait for their operations at once.
WAITING_CALLS = 96
#: Kinds of requests that never wait for each other. Liveness and metrics wait for nothing, readiness up to two seconds
#: for dependencies, reads for PostgreSQL, operations for their end. The operations lane has a few threads more than
#: callers may wait, which refuse further calls.
LANES: Mapping[str, LaneLimits] = {
    "liveness": LaneLimits(threads=4, queue=1024),
    "readiness": LaneLimits(threads=8, queue=128),
    "reads": LaneLimits(threads=40, queue=512),
    "operations": LaneLimits(threads=WAITING_CALLS + 16, queue=256),
}
LIVENESS, READINESS, METRICS = "/healthz", "/readyz", "/metrics"
_LANE_OF_PATH = {LIVENESS: "liveness", METRICS: "liveness", READINESS: "readiness"}

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the API: its handler, its query parameters, and whether it accepts a body.

    `probe` raises `StoreRejected` when the store rejects requests of this `kind` for every game.
    """

    answer: Callable[[RequestContext], Response]
    probe: Callable[[RequestContext], object] = lambda _: None
    #: None: the query is ignored, since probes send parameters of their own.
    query: tuple[str, ...] | None = ()
    body: bool = False
    kind: str = ""


class Api:
    """The API over its collaborators.

    `readiness` returns what is not ready, with the reason; nothing when all is. `metrics` returns the metrics in the
    text format of Prometheus. `defect` is called for each request that failed by a defect. `hosts` are the names with
    dots under which clients reach the manager, in lower case. `access` decides who is served; by default everybody.
    """

    def __init__(
        self,
        *,
        calls: SyncRequests,
        records: Records,
        histories: Histories,
        readiness: Callable[[], Mapping[str, str]],
        logger: logging.Logger,
        metrics: Callable[[], str] = lambda: "",
        defect: Callable[[], object] = lambda: None,
        refusals: StoreRefusals | None = None,
        waiting_calls: int = WAITING_CALLS,
        hosts: Collection[str] = (),
        access: Access | None = None,
    ) -> None:
        self._logger = logger
        self._access = access or Access()
        self._audit = Audit(logger)
        self._hosts = frozenset(hosts)
        self._defect = defect
        self._refusals = refusals or StoreRefusals(lambda *_: None, logger)
        # A random part for each start of the manager plus a number: unique, and cheaper than a UUID for each request.
        self._id_prefix = uuid.uuid4().hex[:16]
        self._id_numbers = itertools.count(1)
        queries = Queries(records, histories, readiness, metrics)
        commands = Commands(calls, records, waiting=waiting_calls)
        game = f"{RUNTIMES}/{{game_id}}"

        def read(answer: Callable[[RequestContext], Response], *query: str) -> Endpoint:
            return Endpoint(answer, partial(queries.probe, answer.__name__), query, kind=f"read of {answer.__name__}")

        def command(answer: Callable[[RequestContext], Response], kind: OpKind, *, body: bool = True) -> Endpoint:
            return Endpoint(answer, partial(commands.probe, kind), body=body, kind=answer.__name__)

        self._router = Router(
            {
                ("GET", LIVENESS): Endpoint(queries.healthz, query=None),
                ("GET", READINESS): Endpoint(queries.readyz, query=None),
                ("GET", METRICS): Endpoint(queries.metrics),
                ("GET", RUNTIMES): read(queries.runtimes, "status", "limit", "cursor"),
                ("GET", game): read(queries.runtime),
                ("GET", f"{game}/health"): read(queries.health),
                ("GET", f"{game}/operations"): read(queries.operations, "limit", "cursor"),
                ("POST", f"{game}/start"): command(commands.start, OpKind.START),
                ("POST", f"{game}/stop"): command(commands.stop, OpKind.STOP),
                ("POST", f"{game}/restart"): command(commands.restart, OpKind.RESTART),
                ("POST", f"{game}/patch"): command(commands.patch, OpKind.PATCH),
                ("DELETE", f"{game}/container"): command(commands.cleanup, OpKind.CLEANUP, body=False),
            }
        )

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Method and path template of every endpoint."""
        return self._router.routes

    def lane(self, request: Request) -> str:
        """The name of the lane (`LANES`) that answers the request."""
        if request.method in READS:
            return _LANE_OF_PATH.get(request.path, "reads")
        return "operations"

    def handle(self, request: Request) -> Response:
        """Answer a request; thread-safe, never raises."""
        request_id = self._request_id(request)
        senders: list[Caller] = []
        response = self._answer(request, request_id, senders.append)
        self._audit.note(request, response.status, senders[0] if senders else None, request_id)
        return replace(response, headers={**response.headers, "X-Request-Id": request_id})

    def _request_id(self, request: Request) -> str:
        given = request.headers.get("x-request-id")
        if given is not None and _SANE_REQUEST_ID.fullmatch(given):
            return given
        return f"{self._id_prefix}-{next(self._id_numbers)}"

    def _answer(self, request: Request, request_id: str, identified: Callable[[Caller], object]) -> Response:
        """The answer; `identified` is called with the caller as soon as it is known."""
        try:
            caller = self._check_sender(request, identified)
            endpoint, game_id = self._router.find(request.method, request.path)
            return self._answer_of(endpoint, _read(request, endpoint, game_id, request_id, caller))
        except HttpError as refusal:
            return refusal.response()
        except GameBusy as error:
            return failure(ErrorCode.CONFLICT, str(error))
        except Unavailable as error:
            return failure(ErrorCode.SERVICE_UNAVAILABLE, str(error))
        except FinalAnswer as error:
            # Without Redis the result of a call cannot be published. A refusal of PostgreSQL that concerns all games
            # is raised as `Unavailable`.
            is_redis = error.dependency == "redis"
            return failure(ErrorCode.SERVICE_UNAVAILABLE if is_redis else ErrorCode.INTERNAL_ERROR, str(error))
        except Exception:  # a defect: the answer points to the log, and the manager goes on
            self._logger.exception(
                "request failed", extra={"request_id": request_id, "method": request.method, "path": request.path}
            )
            self._defect()
            return failure(
                ErrorCode.INTERNAL_ERROR,
                f"the request failed by a defect of the Runtime Manager; its log has the cause under {request_id}",
            )

    def _answer_of(self, endpoint: Endpoint, context: RequestContext) -> Response:
        """The endpoint's answer. Raises `Unavailable` when the store rejects every request of this kind."""
        try:
            response = endpoint.answer(context)
        except FinalAnswer as error:
            probe = partial(endpoint.probe, context)
            if error.dependency == "postgres" and self._refusals.met(endpoint.kind, error, probe):
                raise Unavailable("postgres", f"{error}; it refuses every {endpoint.kind}") from error
            raise
        self._refusals.passed(endpoint.kind)
        return response

    def _check_sender(self, request: Request, identified: Callable[[Caller], object]) -> Caller:
        """Return the caller. Raises `HttpError` if it may not send this request.

        Liveness and readiness need no token, and do not wait until the client's address is known.
        """
        is_probe = request.path in (LIVENESS, READINESS) and request.method in READS
        self._access.check_peer(request, wait=not is_probe)
        self._check_origin(request)
        if is_probe:
            return Caller()
        caller = self._access.caller(request)
        identified(caller)
        self._access.check_right(request, caller)
        return caller

    def _check_origin(self, request: Request) -> None:
        """Refuse requests that a browser sent for a page of another origin.

        This includes GET: a page with a rebound name could read the answers.
        """
        host = request.headers.get("host")
        if host is not None and request.path not in (LIVENESS, READINESS) and not host_is_ours(host, self._hosts):
            raise invalid(
                f"Host {shown(host)}: this service answers to IP addresses, to names without dots and to the names "
                "in RTMANAGER_HTTP_HOSTS; add this name there if it is right",
                status=421,
            )
        foreign = foreign_origin(request.headers)
        if foreign is not None:
            raise invalid(f"{foreign}: requests for pages of another origin are refused", status=403)


def _read(request: Request, endpoint: Endpoint, game_id: str, request_id: str, caller: Caller) -> RequestContext:
    if request.body and not endpoint.body:
        raise invalid(f"{request.method} {request.path} takes no body, got {len(request.body)} bytes")
    if request.body:
        check_json(request.headers)
    return RequestContext(
        game_id=game_id,
        query={} if endpoint.query is None else read_query(request.query, endpoint.query),
        body=request.body,
        source=caller.source,
        caller=caller.name,
        request_id=request_id,
    )
