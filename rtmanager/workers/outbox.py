"""The outbox relay: what a transaction promised reaches Redis, in order, once.

Rows are deleted after Redis has them. When that fails, they are offered again and Redis, which remembers their
ids, does not add them twice; once they are deleted for good it may forget the ids.
"""

from __future__ import annotations

import logging

from rtmanager.workers.ports import Outbox, OutboxTurn, OutputStreams, StaleTurn

#: Messages of one stream that are published in one go.
BATCH = 200


class Relay:
    """One step publishes what is due."""

    def __init__(self, outbox: Outbox, streams: OutputStreams, logger: logging.Logger) -> None:
        self._outbox = outbox
        self._streams = streams
        self._logger = logger
        self._tidy = False
        self._refused: dict[str, str] = {}

    def step(self) -> bool:
        """Whether more is due right now."""
        with self._outbox.turn() as turn:
            if turn is None:
                return False
            if not self._tidy:
                self._forget_leftovers(turn)
            # Until the rows are deleted for good and their ids forgotten, whatever comes between.
            self._tidy = False
            published = self._publish(turn)
        self._streams.forget(published)
        self._tidy = True
        return bool(published)

    def _publish(self, turn: OutboxTurn) -> list[int]:
        due = turn.due(BATCH)
        if not due:
            return []
        try:
            result = self._streams.publish(turn.number, due)
        except StaleTurn as error:
            # Ours is the turn that PostgreSQL gave out last, so its counter was set back: by a restore. It gives ids of
            # messages again, too, and what Redis remembers of them is about others.
            self._logger.warning("outbox turn was behind", extra={"turn": turn.number, "latest": error.latest})
            turn.raise_number(error.latest)
            self._streams.forget(sorted(self._streams.remembered()))
            return []
        self._report(dict(result.refused))
        turn.delete(result.ids)
        return list(result.ids)

    def _forget_leftovers(self, turn: OutboxTurn) -> None:
        """Ids whose rows were deleted by a relay that died before it could say so."""
        remembered = self._streams.remembered()
        self._streams.forget(sorted(remembered - turn.still_waiting(sorted(remembered))))

    def _report(self, refused: dict[str, str]) -> None:
        for stream, reason in refused.items():
            if self._refused.get(stream) != reason:
                self._logger.error("redis refuses an output stream", extra={"stream": stream, "error": reason})
        self._refused = refused
