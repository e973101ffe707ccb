"""Rows of the queue that cannot be read become operations that are rejected, and keep their kind."""

from __future__ import annotations

import unittest

from rtmanager.adapters.postgres import queue
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.operation import QUEUED, OpKind, OpSource


class UnreadableRow(unittest.TestCase):
    def row(self, kind: str) -> dict[str, object]:
        request = {"game_id": "g1", "kind": kind, "source": "unknown", "source_ref": "rest:1", "image_ref": ""}
        return {**request, "id": 7, "generation": 2, "stream": None, "problem_code": None, "reason": ""}

    def test_it_is_rejected_under_its_own_kind(self) -> None:
        for kind in QUEUED:
            with self.subTest(kind=kind):
                request = queue._operation(self.row(kind.value)).request
                self.assertEqual((request.kind, request.source), (kind, OpSource.AUTO_RECONCILE))
                assert request.problem is not None
                self.assertIs(request.problem[0], ErrorCode.INTERNAL_ERROR)

    def test_a_kind_that_is_never_queued_counts_as_a_start(self) -> None:
        for kind in ("nonsense", OpKind.RECONCILE_ADOPT.value):
            self.assertIs(queue._operation(self.row(kind)).request.kind, OpKind.START)


if __name__ == "__main__":
    unittest.main()
