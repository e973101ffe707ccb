"""Options of log drivers: a value that Docker refuses only at a container's start is found earlier."""

from __future__ import annotations

import unittest

from rtmanager.domain.log_options import fault, unbounded


def read(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


class FaultTest(unittest.TestCase):
    """Each was tested with Docker 20.10."""

    def test_what_docker_starts_has_no_fault(self) -> None:
        for driver, text in (
            ("json-file", ""),
            ("json-file", "max-size=10m max-file=3"),
            ("json-file", "max-size=10mb"),
            ("json-file", "max-size=10MiB"),
            ("json-file", "max-size=1.5g"),
            ("json-file", "max-file=3"),
            ("json-file", "max-size=10m max-file=2 compress=true"),
            ("json-file", "compress=0"),
            ("local", "max-size=10m max-file=3"),
            ("local", "max-file=1 compress=false"),
            ("journald", "max-size=whatever"),
        ):
            with self.subTest(driver, options=text):
                self.assertEqual(fault(driver, read(text)), "")

    def test_what_docker_refuses_to_start_is_named(self) -> None:
        for driver, text, expected in (
            ("json-file", "max-size=10q", "max-size=10q"),
            ("json-file", "max-size=-1", "max-size=-1"),
            ("json-file", "max-size=0", "max-size=0"),
            ("json-file", "max-size=", "max-size="),
            ("json-file", "max-file=0", "max-file=0"),
            ("json-file", "max-file=3.5", "max-file=3.5"),
            ("json-file", "compress=yes", "compress=yes"),
            ("json-file", "compress=true", "needs max-size"),
            ("json-file", "compress=true max-size=10m", "max-file of 2"),
            ("local", "max-size=10q", "max-size=10q"),
            ("local", "max-file=0", "max-file=0"),
            ("local", "max-file=1", "compress=false"),
            ("local", "compress=maybe", "compress=maybe"),
        ):
            with self.subTest(driver, options=text):
                self.assertIn(expected, fault(driver, read(text)))

    def test_only_files_without_a_size_grow_without_a_limit(self) -> None:
        self.assertTrue(unbounded("json-file", {"max-file": "3"}))
        for driver, options in (("json-file", {"max-size": "1m"}), ("local", {}), ("journald", {})):
            self.assertFalse(unbounded(driver, options))
