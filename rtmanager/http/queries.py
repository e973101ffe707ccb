"""The read-only endpoints: liveness, readiness, metrics, records, health and operation log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.game import shown
from rtmanager.domain.record import Status
from rtmanager.http.encoding import encode_health, encode_logged
from rtmanager.http.messages import HttpError, Response, exposition, failure, invalid, listing, passed_on, success
from rtmanager.http.paging import decode_cursor, decode_log_cursor, encode_cursor, encode_log_cursor, page_size
from rtmanager.http.request_context import RequestContext, checked_game_id
from rtmanager.ports.store import PROBE, Histories, Records


class Queries:
    """Answers from the store, the readiness checks and the metrics."""

    def __init__(
        self,
        records: Records,
        histories: Histories,
        readiness: Callable[[], Mapping[str, str]],
        metrics: Callable[[], str],
    ) -> None:
        self._records = records
        self._histories = histories
        self._readiness = readiness
        self._metrics = metrics

    def healthz(self, _context: RequestContext) -> Response:
        return success({"status": "ok"})

    def readyz(self, _context: RequestContext) -> Response:
        missing = self._readiness()
        if not missing:
            return success({"status": "ready"})
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        return failure(ErrorCode.SERVICE_UNAVAILABLE, f"not ready: {reasons}")

    def metrics(self, _context: RequestContext) -> Response:
        return exposition(self._metrics())

    def runtimes(self, context: RequestContext) -> Response:
        limit, cursor = page_size(context.query.get("limit")), context.query.get("cursor")
        after = None if cursor is None else decode_cursor(cursor)
        # One more than requested shows whether there is a further page.
        found = self._records.page_as_json(status=_status(context.query.get("status")), after=after, limit=limit + 1)
        page = found[:limit]
        next_cursor = encode_cursor(json.loads(page[-1])["game_id"]) if len(found) > limit else None
        return listing(page, next_cursor)

    def runtime(self, context: RequestContext) -> Response:
        return passed_on(self._record(context))

    def health(self, context: RequestContext) -> Response:
        self._record(context)  # a game without a record has no health either
        return success(encode_health(context.game_id, self._histories.health(context.game_id)))

    def operations(self, context: RequestContext) -> Response:
        game_id = checked_game_id(context)
        limit, cursor = page_size(context.query.get("limit")), context.query.get("cursor")
        before = None if cursor is None else decode_log_cursor(cursor)
        found = self._histories.log(game_id, before=before, limit=limit + 1)
        if not found:
            self._require_known(game_id)
        page = found[:limit]
        next_cursor = encode_log_cursor(page[-1][0]) if len(found) > limit else None
        return success({"items": [encode_logged(*row) for row in page], "next_cursor": next_cursor})

    def probe(self, kind: str, _context: RequestContext) -> None:
        """Raise `StoreRejected` when the store rejects this kind of read for every game."""
        if kind == "runtimes":
            self._records.page_as_json(status=None, after=None, limit=0)
            return
        self._records.get_as_json(PROBE)
        if kind == "health":
            self._histories.health(PROBE)
        if kind == "operations":
            self._histories.log(PROBE, before=None, limit=1)
            self._records.get(PROBE)

    def _record(self, context: RequestContext) -> bytes:
        """The game's record as JSON. Raises `HttpError` when it has none."""
        record = self._records.get_as_json(checked_game_id(context))
        if record is None:
            raise HttpError(ErrorCode.NOT_FOUND, f"game {context.game_id} has no record: it was never started here")
        return record

    def _require_known(self, game_id: str) -> None:
        """Raise `HttpError` for an unknown game; a first start that failed leaves a log and no record."""
        if self._records.get(game_id) is None and not self._histories.log(game_id, before=None, limit=1):
            raise HttpError(
                ErrorCode.NOT_FOUND, f"game {game_id} has neither a record nor a log: nothing was ever asked of it here"
            )


def _status(text: str | None) -> Status | None:
    if text is not None and text not in set(Status):
        raise invalid(f"status {shown(text)}: expected one of {', '.join(Status)}")
    return None if text is None else Status(text)
