"""The endpoints that change nothing: liveness, readiness, the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.game import shown
from rtmanager.domain.record import Status
from rtmanager.http.asked import Asked, checked_game_id
from rtmanager.http.encoding import decode_cursor, encode_cursor, encode_record
from rtmanager.http.messages import Refused, Response, failure, invalid, success
from rtmanager.operations.store import Records

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


class Reads:
    """Answers from the store and from the last look at the dependencies."""

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

    def runtimes(self, asked: Asked) -> Response:
        limit, cursor = _page_size(asked.query.get("limit")), asked.query.get("cursor")
        after = None if cursor is None else decode_cursor(cursor)
        # One more than asked for tells whether there is a further page.
        found = self._records.page(status=_status(asked.query.get("status")), after=after, limit=limit + 1)
        page = found[:limit]
        next_cursor = encode_cursor(page[-1].game_id) if len(found) > limit else None
        return success({"items": [encode_record(record) for record in page], "next_cursor": next_cursor})

    def runtime(self, asked: Asked) -> Response:
        record = self._records.get(checked_game_id(asked))
        if record is None:
            raise Refused(ErrorCode.NOT_FOUND, f"game {asked.game_id} has no record: it was never started here")
        return success(encode_record(record))


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
