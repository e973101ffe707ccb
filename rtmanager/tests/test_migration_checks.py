"""Each list of values in a CHECK of the schema names exactly the values of its enum; needs no server."""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterable, Mapping

from rtmanager.adapters.postgres import schema
from rtmanager.domain.findings import AlarmKind
from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.operation import OpKind, OpSource, Outcome
from rtmanager.domain.record import Status

#: The values of each list, by the name of its constraint.
LISTS: Mapping[str, Iterable[str]] = {
    "runtime_records_status_chk": Status,
    "operation_log_op_kind_chk": OpKind,
    "operation_log_op_source_chk": OpSource,
    "operation_log_outcome_chk": Outcome,
    "health_snapshots_status_chk": HealthStatus,
    "health_snapshots_source_chk": HealthSource,
    "alarms_kind_chk": AlarmKind,
    # The states are written in SQL alone.
    "operations_state_chk": ("due", "running", "done"),
}
#: Conditions that are no lists.
OTHERS = {"only_row"}

_STEP = re.compile(
    r"\bDROP\s+CONSTRAINT\s+(?:IF\s+EXISTS\s+)?(?P<dropped>\w+)"
    r"|(?:\bCONSTRAINT\s+(?P<name>\w+)\s+)?\bCHECK\s*"
    r"\(\s*(?:\w+\s+IN\s*\((?P<values>[^()]*)\)|(?P<other>(?:[^()]|\([^()]*\))*))\s*\)",
    re.IGNORECASE,
)


def checks(*migrations: str) -> tuple[dict[str, list[str]], set[str]]:
    """Return the values of each list by its constraint's name after all migrations, and the other conditions."""
    lists: dict[str, list[str]] = {}
    others = set()
    for migration in migrations:
        text = re.sub(r"--.*", "", migration)
        steps = list(_STEP.finditer(text))
        read = sum(step["dropped"] is None for step in steps)
        if read != len(re.findall(r"\bCHECK\b", text, re.IGNORECASE)):
            raise ValueError(f"a CHECK that cannot be read: {text}")
        for step in steps:
            if step["dropped"]:
                lists.pop(step["dropped"], None)
            elif step["values"] is None:
                others.add(step["other"].strip())
            else:
                lists[step["name"] or step[0]] = re.findall(r"'([^']*)'", step["values"])
    return lists, others


class Checks(unittest.TestCase):
    maxDiff = None

    def test_each_list_has_exactly_the_values_of_its_enum(self) -> None:
        lists, others = checks(*(each.sql.decode() for each in schema.known_migrations()))
        self.assertEqual(
            {name: sorted(values) for name, values in lists.items()},
            {name: sorted(map(str, values)) for name, values in LISTS.items()},
        )
        self.assertEqual(others, OTHERS)

    def test_the_newest_form_of_a_constraint_counts(self) -> None:
        first = (
            "CREATE TABLE t (a text, CONSTRAINT a_chk CHECK (a IN ('x', 'y')), CONSTRAINT b_chk CHECK (b IN ('z')));"
        )
        again = "ALTER TABLE t DROP CONSTRAINT a_chk, ADD CONSTRAINT a_chk CHECK (a IN (\n    'x', 'y', 'new'));"
        gone = "ALTER TABLE t DROP CONSTRAINT IF EXISTS b_chk; -- CHECK (b IN ('z'))"
        self.assertEqual(checks(first), ({"a_chk": ["x", "y"], "b_chk": ["z"]}, set()))
        self.assertEqual(checks(first, again, gone), ({"a_chk": ["x", "y", "new"]}, set()))

    def test_a_list_without_a_name_or_in_another_form_is_not_missed(self) -> None:
        lists, _ = checks("CREATE TABLE t (a text CHECK (a IN ('x')));")
        self.assertEqual(list(lists.values()), [["x"]])
        self.assertEqual(checks("CHECK (a = ANY (ARRAY['x']))"), ({}, {"a = ANY (ARRAY['x'])"}))
        with self.assertRaises(ValueError):
            checks("CHECK (((deep)))")


if __name__ == "__main__":
    unittest.main()
