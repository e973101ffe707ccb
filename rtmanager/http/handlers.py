"""What each endpoint does, apart from HTTP: one function each, from what was asked to an answer.

Reads look into the store; operations are queued and waited for, never done here. An id that cannot be a game's
is refused before anything is queued, with one exception: a start of one is an operation like any other, since
its failure has to be logged and reported (contract, "Operations").
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rtmanager.domain import operation
from rtmanager.domain.errors import ErrorCode, InvalidValue, Unavailable
from rtmanager.domain.game import MAX_READABLE_LENGTH, check_game_id, shown
from rtmanager.domain.image_ref import MAX_LENGTH
from rtmanager.domain.operation import OpKind, OpSource, Outcome, StopReason
from rtmanager.domain.record import Status
from rtmanager.http.bodies import read_fields
from rtmanager.http.encoding import decode_cursor, encode_cursor, encode_record
from rtmanager.http.messages import Refused, Response, failure, invalid, success
from rtmanager.operations.store import Records, Verdict

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request means: its path's game, its query, who sent it and under which request id."""

    game_id: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    source: OpSource = OpSource.ADMIN_REST
    request_id: str = ""


class Calls(Protocol):
    """Runs operations on behalf of waiting callers (`operations.calls`)."""

    def perform(self, request: operation.Request) -> Verdict:
        """Queue and wait for the end. Raises `GameBusy` or `Unavailable`."""
        ...


class Reads:
    """Endpoints that change nothing."""

    def __init__(self, records: Records, readiness: Callable[[], Mapping[str, str]]) -> None:
        self._records = records
        self._readiness = readiness

    def healthz(self, _asked: Asked) -> Response:
        return success({"status": "ok"})

    def readyz(self, _asked: Asked) -> Response:
        missing = self._readiness()
        if not missing:
            return success({"status": "ready"})
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        return failure(ErrorCode.SERVICE_UNAVAILABLE, f"not ready: {reasons}")

    def list(self, asked: Asked) -> Response:
        limit, cursor = _page_size(asked.query.get("limit")), asked.query.get("cursor")
        after = None if cursor is None else decode_cursor(cursor)
        # One more than asked for tells whether there is a further page.
        found = self._records.page(status=_status(asked.query.get("status")), after=after, limit=limit + 1)
        page = found[:limit]
        next_cursor = encode_cursor(page[-1].game_id) if len(found) > limit else None
        return success({"items": [encode_record(record) for record in page], "next_cursor": next_cursor})

    def get(self, asked: Asked) -> Response:
        record = self._records.get(_checked_game_id(asked))
        if record is None:
            raise Refused(ErrorCode.NOT_FOUND, f"game {asked.game_id} has no record: it was never started here")
        return success(encode_record(record))


class Operations:
    """Endpoints that queue an operation and wait for its end.

    At most `waiting` of them at once: each holds a connection and its thread, and reads need some too.
    """

    def __init__(self, calls: Calls, records: Records, *, waiting: int) -> None:
        self._calls = calls
        self._records = records
        self._waiting = waiting
        self._places = threading.BoundedSemaphore(waiting)

    def start(self, asked: Asked) -> Response:
        if len(asked.game_id) > MAX_READABLE_LENGTH or not asked.game_id.isprintable():
            _checked_game_id(asked)
        return self._perform(asked, OpKind.START, image_ref=_image_ref(asked))

    def stop(self, asked: Asked) -> Response:
        _checked_game_id(asked)
        reason = read_fields(asked.body, ("reason",))["reason"]
        if reason not in set(StopReason):
            raise invalid(f"reason {shown(reason)}: expected one of {', '.join(StopReason)}")
        return self._perform(asked, OpKind.STOP, reason=reason)

    def restart(self, asked: Asked) -> Response:
        _checked_game_id(asked)
        read_fields(asked.body, ())
        return self._perform(asked, OpKind.RESTART)

    def patch(self, asked: Asked) -> Response:
        _checked_game_id(asked)
        return self._perform(asked, OpKind.PATCH, image_ref=_image_ref(asked))

    def cleanup(self, asked: Asked) -> Response:
        _checked_game_id(asked)
        return self._perform(asked, OpKind.CLEANUP)

    def _perform(self, asked: Asked, kind: OpKind, *, image_ref: str = "", reason: str = "") -> Response:
        request = operation.Request(
            game_id=asked.game_id,
            kind=kind,
            source=asked.source,
            source_ref=f"rest:{asked.request_id}",
            image_ref=image_ref,
            reason=reason,
        )
        if not self._places.acquire(blocking=False):
            raise Refused(
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
            record = self._records.get(request.game_id)
        except Unavailable as error:
            raise Unavailable(error.dependency, f"{done}, but its record cannot be read now: {error}") from error
        if record is None:
            return failure(ErrorCode.INTERNAL_ERROR, f"{done}, but it has no record: somebody deleted the row")
        return success(encode_record(record))


def _checked_game_id(asked: Asked) -> str:
    try:
        return check_game_id(asked.game_id)
    except InvalidValue as error:
        raise invalid(str(error)) from error


def _image_ref(asked: Asked) -> str:
    """The body's image_ref. Whether it is a good one is for the operation to say; too long, it stays too long."""
    return read_fields(asked.body, ("image_ref",))["image_ref"][: MAX_LENGTH + 1]


def _page_size(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LARGEST_PAGE):
        raise invalid(f"limit {shown(text)}: expected a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def _status(text: str | None) -> Status | None:
    if text is not None and text not in set(Status):
        raise invalid(f"status {shown(text)}: expected one of {', '.join(Status)}")
    return None if text is None else Status(text)
