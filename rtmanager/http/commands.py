"""The endpoints that queue an operation and wait for its end.

A malformed game id is refused before anything is queued. The exception is a start, whose failure has to be logged and
reported (contract, "Operations").
"""

from __future__ import annotations

import threading
from typing import Protocol

from rtmanager.domain import operation
from rtmanager.domain.errors import ErrorCode, InvalidValue, Unavailable
from rtmanager.domain.game import MAX_READABLE_LENGTH
from rtmanager.domain.image_ref import MAX_LENGTH
from rtmanager.domain.jobs import check_reason
from rtmanager.domain.operation import KINDS, OpKind, Outcome, StopReason
from rtmanager.http.bodies import read_fields
from rtmanager.http.messages import HttpError, Response, failure, invalid, passed_on
from rtmanager.http.request_context import RequestContext, checked_game_id
from rtmanager.ports.store import PROBE, PROBE_IMAGE, OperationResult, Records, StoreRejected


class SyncRequests(Protocol):
    """Runs operations for waiting callers (`operations.sync_requests`)."""

    def perform(self, request: operation.Request) -> OperationResult:
        """Queue the operation and wait for its end. Raises `GameBusy` or `Unavailable`."""
        ...

    def require_room(self, request: operation.Request) -> None:
        """Raise `StoreRejected` when the store rejects such requests for every game; changes nothing."""
        ...


class Commands:
    """Queues operations for at most `waiting` callers at once, since each holds a connection and a thread."""

    def __init__(self, calls: SyncRequests, records: Records, *, waiting: int) -> None:
        self._calls = calls
        self._records = records
        self._waiting = waiting
        self._places = threading.BoundedSemaphore(waiting)

    def start(self, context: RequestContext) -> Response:
        if len(context.game_id) > MAX_READABLE_LENGTH or not context.game_id.isprintable():
            checked_game_id(context)
        return self._perform(context, OpKind.START, image_ref=_image_ref(context))

    def stop(self, context: RequestContext) -> Response:
        checked_game_id(context)
        reason = read_fields(context.body, ("reason",))["reason"]
        try:
            check_reason(reason)
        except InvalidValue as error:
            raise invalid(str(error)) from None
        return self._perform(context, OpKind.STOP, reason=reason)

    def restart(self, context: RequestContext) -> Response:
        checked_game_id(context)
        read_fields(context.body, ())
        return self._perform(context, OpKind.RESTART)

    def patch(self, context: RequestContext) -> Response:
        checked_game_id(context)
        return self._perform(context, OpKind.PATCH, image_ref=_image_ref(context))

    def cleanup(self, context: RequestContext) -> Response:
        checked_game_id(context)
        return self._perform(context, OpKind.CLEANUP)

    def probe(self, kind: OpKind, context: RequestContext) -> None:
        """Raise `StoreRejected` when the store rejects operations of this kind for every game; changes nothing."""
        request = operation.Request(
            game_id=PROBE,
            kind=kind,
            source=context.source,
            source_ref=f"rest:{PROBE}",
            image_ref=PROBE_IMAGE if KINDS[kind].takes == "image_ref" else "",
            reason=StopReason.FINISHED if KINDS[kind].takes == "reason" else "",
        )
        self._calls.require_room(request)
        self._records.get_as_json(PROBE)

    def _perform(self, context: RequestContext, kind: OpKind, *, image_ref: str = "", reason: str = "") -> Response:
        request = operation.Request(
            game_id=context.game_id,
            kind=kind,
            source=context.source,
            source_ref=f"rest:{context.request_id}",
            image_ref=image_ref,
            reason=reason,
            caller=context.caller,
        )
        if not self._places.acquire(blocking=False):
            raise HttpError(
                ErrorCode.SERVICE_UNAVAILABLE,
                f"{self._waiting} calls wait for their operations already; try again when some have ended",
            )
        try:
            verdict = self._calls.perform(request)
        finally:
            self._places.release()
        if verdict.outcome is Outcome.FAILURE:
            return failure(verdict.error_code or ErrorCode.INTERNAL_ERROR, verdict.error_message)
        return self._record_after(request)

    def _record_after(self, request: operation.Request) -> Response:
        done = f"the {request.kind} of game {request.game_id} succeeded"
        try:
            record = self._records.get_as_json(request.game_id)
        except Unavailable as error:
            raise Unavailable(error.dependency, f"{done}, but its record cannot be read now: {error}") from error
        except StoreRejected as error:
            raise StoreRejected(f"{done}, but its record cannot be read: {error}", sqlstate=error.sqlstate) from error
        if record is None:
            return failure(ErrorCode.INTERNAL_ERROR, f"{done}, but it has no record: somebody deleted the row")
        return passed_on(record)


def _image_ref(context: RequestContext) -> str:
    """The body's image_ref; the operation validates it. A longer one is cut to one character above the maximum."""
    return read_fields(context.body, ("image_ref",))["image_ref"][: MAX_LENGTH + 1]
