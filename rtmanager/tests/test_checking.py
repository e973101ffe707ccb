"""`check`: the order of its checks, the effect of a failed one on others, and the output of results."""

from __future__ import annotations

import json
import logging
import tempfile
import unittest
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from rtmanager.bootstrap.dependencies import Check, Dependencies, NotTried
from rtmanager.checking import Result, as_json, as_lines, passed, results
from rtmanager.domain.container import TrialSpec
from rtmanager.domain.errors import IN_MESSAGE, RuntimeManagerError, Unavailable
from rtmanager.ports.runtime import Image, LaunchFailed
from rtmanager.tests.test_config import config
from rtmanager.trials import ImageMissing, Trials


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


LABELS = {"com.galaxy.cpu_quota": "9000", "com.galaxy.memory": "none"}


class AccessTest(unittest.TestCase):
    def parts(self, **changes: str) -> Dependencies:
        parts = Dependencies.of(config(**changes), logging.getLogger("test"))
        self.addCleanup(parts.close)
        return parts

    def result(self, **changes: str) -> Result:
        parts = self.parts(**changes)
        [check] = [each for each in parts.checks() if each.name == "access"]
        return next(results([check], parts.warnings, logging.getLogger("test")))

    def test_without_tokens_a_listener_that_others_reach_is_warned_of(self) -> None:
        for address in (":8096", "0.0.0.0:8096", "[::]:8096", "10.0.0.7:1", "rtmanager:8096"):
            found = self.result(INTERNAL_HTTP_ADDR=address)
            [warning] = found.warnings
            self.assertTrue(found.ok)
            for text in (address, "remedy: RTMANAGER_HTTP_TOKENS_DIR"):
                self.assertIn(text, warning)
        for address in ("127.0.0.1:0", "127.1.2.3:8096", "[::1]:8096", "localhost:8096", "LOCALHOST:1"):
            self.assertEqual(self.result(INTERNAL_HTTP_ADDR=address).warnings, [], address)

    def test_tokens_are_read_and_a_fault_in_them_fails_with_its_remedy(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "gm.game-master-1")
            file.touch(0o600)
            found = self.result(HTTP_TOKENS_DIR=directory)
            self.assertFalse(found.ok)
            self.assertIn("'gm.game-master-1' is empty", found.message)
            self.assertIn(f"> {directory}/gm.game-master-1", found.remedy)
            file.write_text("0123456789abcdef")
            self.assertEqual(
                self.result(HTTP_TOKENS_DIR=directory),
                Result("access", True, f"1 token in {directory}", warnings=[]),
            )
            file.chmod(0o604)
            self.assertIn("gm.game-master-1", self.result(HTTP_TOKENS_DIR=directory).warnings[0])


class Images:
    """A Docker host whose image `wide` has a label with more cores than it has."""

    def __init__(self, references: list[str], gone: set[str]) -> None:
        self.references, self.gone = references, gone

    def remove_trials(self, network: str) -> None:
        """No trial has left anything."""

    def local_references(self) -> list[str]:
        return self.references

    def local_image(self, reference: str) -> Image | None:
        return None if reference in self.gone else Image("sha256:1", LABELS if reference == "wide" else {})

    def try_create(self, spec: TrialSpec, *, any_command: bool) -> None:
        if spec.image_ref in self.gone:
            raise LaunchFailed(f"No such image: {spec.image_ref}")
        if spec.limits.cpus > 2:
            raise LaunchFailed("Range of CPUs is from 0.01 to 2.00")


class ContainerTrialTest(unittest.TestCase):
    def trial(self, image_ref: str, references: list[str], gone: set[str]) -> Result:
        warnings: dict[str, list[str]] = {}
        directories = SimpleNamespace(trial=lambda: nullcontext("/srv/games/.trial"))
        parts = SimpleNamespace(docker=Images(references, gone), state_directories=directories, warnings=warnings)
        check = Trials(config(), cast(Dependencies, parts), image_ref).checks()[-1]
        [found] = results([replace(check, needs=())], warnings, logging.getLogger("test"))
        return found

    def test_labels_of_an_image_that_nobody_named_do_not_count(self) -> None:
        found = self.trial("", ["wide"], set())
        self.assertEqual((found.ok, list(found.warnings)), (True, []))
        self.assertIn("created from wide with 1 cores, 512 MiB", found.message)

    def test_labels_of_a_named_image_count(self) -> None:
        found = self.trial("wide", ["other"], set())
        self.assertEqual((found.ok, found.message), (False, "Range of CPUs is from 0.01 to 2.00"))
        self.assertIn("com.galaxy.memory", found.warnings[0])

    def test_an_image_that_somebody_removes_makes_way_for_the_next(self) -> None:
        self.assertIn("created from c", self.trial("", ["a", "b", "c"], {"a", "b"}).message)
        self.assertIsNone(self.trial("", ["a"], {"a"}).ok)
        self.assertIsNone(self.trial("", [], set()).ok)
        self.assertEqual(self.trial("a", ["b"], {"a"}).message, str(ImageMissing("a")))


if __name__ == "__main__":
    unittest.main()
