"""The internal REST API (contract, "REST"): the table of its endpoints, and what is common to all of them.

Knows nothing of sockets: `Api.handle` is a function from a request to a response. It answers every request,
its own defects included, and every answer carries `X-Request-Id`: the caller's, if that can stand in a log and
in a key, else a new one. The log of an operation has it as `source_ref` `rest:<id>`.
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
from rtmanager.domain.operation import OpKind, OpSource
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
#: Operations that callers may wait for at once.
WAITING_CALLS = 96
#: Kinds of requests that never wait for each other: liveness and metrics ask nobody, readiness waits up to two seconds
#: for dependencies, reads for PostgreSQL, operations for their end. A few threads more than may wait tell the next so.
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
    """One operation of the API: who answers, which query parameters it knows, whether a body may come.

    `probe` raises `StoreRejected` when the store refuses what requests of this `kind` need for every game.
    """

    answer: Callable[[RequestContext], Response]
    probe: Callable[[RequestContext], object] = lambda _: None
    #: None: whatever the query says is ignored, as probes send parameters of their own.
    query: tuple[str, ...] | None = ()
    body: bool = False
    kind: str = ""


class Api:
    """The API over its collaborators.

    `readiness` gives what does not answer, and why; nothing when ready. `metrics` gives what was counted, in the
    text format of Prometheus. `defect` is called for each request that failed by a defect. `hosts` are names with dots
    under which the service is reached, in lower case.
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
    ) -> None:
        self._logger = logger
        self._hosts = frozenset(hosts)
        self._defect = defect
        self._refusals = refusals or StoreRefusals(lambda *_: None, logger)
        # A random part for each start of the service and a number: unique, and cheaper than a UUID each time.
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
        """Which of `LANES` answers the request."""
        if request.method == "GET" or request.method == "HEAD":
            return _LANE_OF_PATH.get(request.path, "reads")
        return "operations"

    def handle(self, request: Request) -> Response:
        """The answer to a request; safe for any number of threads, never raises."""
        request_id = self._request_id(request)
        response = self._answer(request, request_id)
        return replace(response, headers={**response.headers, "X-Request-Id": request_id})

    def _request_id(self, request: Request) -> str:
        given = request.headers.get("x-request-id")
        if given is not None and _SANE_REQUEST_ID.fullmatch(given):
            return given
        return f"{self._id_prefix}-{next(self._id_numbers)}"

    def _answer(self, request: Request, request_id: str) -> Response:
        try:
            self._check_sender(request)
            endpoint, game_id = self._router.find(request.method, request.path)
            return self._answer_of(endpoint, _read(request, endpoint, game_id, request_id))
        except HttpError as refusal:
            return refusal.response()
        except GameBusy as error:
            return failure(ErrorCode.CONFLICT, str(error))
        except Unavailable as error:
            return failure(ErrorCode.SERVICE_UNAVAILABLE, str(error))
        except FinalAnswer as error:
            # Without Redis nobody would hear of what a call does; what PostgreSQL has against all is `Unavailable`.
            is_redis = error.dependency == "redis"
            return failure(ErrorCode.SERVICE_UNAVAILABLE if is_redis else ErrorCode.INTERNAL_ERROR, str(error))
        except Exception:  # a defect: the caller is told where to look, the service lives on
            self._logger.exception(
                "request failed", extra={"request_id": request_id, "method": request.method, "path": request.path}
            )
            self._defect()
            return failure(
                ErrorCode.INTERNAL_ERROR,
                f"the request failed by a defect of the Runtime Manager; its log has the cause under {request_id}",
            )

    def _answer_of(self, endpoint: Endpoint, context: RequestContext) -> Response:
        """Its answer. Raises `Unavailable` when the store refuses every such request."""
        try:
            response = endpoint.answer(context)
        except FinalAnswer as error:
            probe = partial(endpoint.probe, context)
            if error.dependency == "postgres" and self._refusals.met(endpoint.kind, error, probe):
                raise Unavailable("postgres", f"{error}; it refuses every {endpoint.kind}") from error
            raise
        self._refusals.passed(endpoint.kind)
        return response

    def _check_sender(self, request: Request) -> None:
        """Refuse what a browser sent for a page of somebody else; GETs too, for a rebound name would read answers."""
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


def _read(request: Request, endpoint: Endpoint, game_id: str, request_id: str) -> RequestContext:
    if request.body and not endpoint.body:
        raise invalid(f"{request.method} {request.path} takes no body, got {len(request.body)} bytes")
    if request.body:
        check_json(request.headers)
    return RequestContext(
        game_id=game_id,
        query={} if endpoint.query is None else read_query(request.query, endpoint.query),
        body=request.body,
        source=OpSource.GM_REST if request.headers.get("x-galaxy-caller") == "gm" else OpSource.ADMIN_REST,
        request_id=request_id,
    )
