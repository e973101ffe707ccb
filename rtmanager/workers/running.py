"""Reads the records of all running games, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.ports.store import Records

#: Records of one page.
PAGE = 1000


def running_records(records: Records) -> Iterator[RuntimeRecord]:
    """All records with the status running."""
    after = None
    while True:
        page = records.page(status=Status.RUNNING, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].game_id
