"""Encodes a record as the JSON of the REST API, for stores in memory.

PostgreSQL encodes records itself (`adapters/postgres/sql/records.sql`); `rtmanager.tests.store_contract` compares them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime

from rtmanager.domain.record import RuntimeRecord


def record_json(record: RuntimeRecord) -> str:
    """All twelve fields, null where there is nothing, times in UTC to the microsecond (contract, "REST")."""
    return json.dumps({name: _encoded(value) for name, value in asdict(record).items()})


def _encoded(value: str | datetime | None) -> str | None:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else value
