"""`check`: the order of its checks, the effect of a failed one on others, and the output of results."""

from __future__ import annotations

import json
import logging
import unittest
from collections.abc import Callable

from rtmanager.bootstrap.dependencies import Check, NotTried
from rtmanager.checking import Result, as_json, as_lines, passed, results
from rtmanager.domain.errors import IN_MESSAGE, RuntimeManagerError, Unavailable


def fails(error: Exception) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def remedied(message: str, remedy: str) -> RuntimeManagerError:
    error = RuntimeManagerError(message)
    error.remedy = remedy
    return error


class ResultsTest(unittest.TestCase):
    def results(self, *checks: Check, **warnings: list[str]) -> list[Result]:
        return list(results(checks, warnings, logging.getLogger("test")))

    def check(self, name: str, run: Callable[[], str], *needs: str) -> Check:
        return Check(name, "system", run, "the check's remedy", needs=needs)

    def test_a_good_check_reports_what_it_found(self) -> None:
        self.assertEqual(
            self.results(self.check("redis", lambda: "Redis 7"), redis=["odd"]),
            [Result("redis", True, "Redis 7", warnings=["odd"])],
        )

    def test_a_failure_has_its_own_remedy_else_that_of_the_check_and_none_when_the_message_has_it(self) -> None:
        for error, remedy in (
            (Unavailable("redis", "away"), "the check's remedy"),
            (remedied("wrong", "mend it"), "mend it"),
            (remedied("wrong; mend it", IN_MESSAGE), ""),
        ):
            [found] = self.results(self.check("redis", fails(error)))
            self.assertEqual(found, Result("redis", False, str(error), remedy))

    def test_what_needs_a_check_that_failed_is_not_tried_nor_what_needs_that(self) -> None:
        found = self.results(
            self.check("a", fails(Unavailable("a", "away"))),
            self.check("b", lambda: "b"),
            self.check("c", lambda: "c", "b", "a"),
            self.check("d", lambda: "d", "c"),
            self.check("e", lambda: "e", "b"),
        )
        self.assertEqual([each.ok for each in found], [False, True, None, None, True])
        self.assertEqual(found[2].message, "not tried: a comes first")

    def test_a_defect_hides_no_other_check(self) -> None:
        with self.assertLogs("test"):
            found = self.results(self.check("a", fails(TypeError("oops"))), self.check("b", lambda: "b"))
        self.assertEqual([each.ok for each in found], [False, True])
        self.assertIn("defect of this check, see the log: TypeError: oops", found[0].message)

    def test_what_was_not_tried_is_no_failure(self) -> None:
        found = self.results(self.check("a", fails(NotTried("no image", "pull one"))))
        self.assertEqual(found, [Result("a", None, "not tried: no image", "pull one")])
        self.assertTrue(passed(found))


class WritingTest(unittest.TestCase):
    FOUND = (
        Result("redis", True, "Redis 7", warnings=["one", "two"]),
        Result("docker", False, "away", "start it"),
        Result("container", None, "not tried: docker comes first"),
    )

    def test_lines_for_a_person(self) -> None:
        self.assertEqual(
            "\n".join(map(as_lines, self.FOUND)).splitlines(),
            [
                "ok      redis       Redis 7",
                "warning redis       one",
                "warning redis       two",
                "FAILED  docker      away",
                "                    remedy: start it",
                "skipped container   not tried: docker comes first",
            ],
        )

    def test_json_for_a_program(self) -> None:
        """A stable form: docs/operations.md has it."""
        found = json.loads(as_json(self.FOUND))
        self.assertEqual((list(found), found["ok"]), (["ok", "checks"], False))
        self.assertEqual(
            [list(each) for each in found["checks"]], [["name", "ok", "message", "remedy", "warnings"]] * 3
        )
        self.assertEqual([each["ok"] for each in found["checks"]], [True, False, None])
        self.assertEqual(found["checks"][0]["warnings"], ["one", "two"])


if __name__ == "__main__":
    unittest.main()
