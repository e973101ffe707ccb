"""A log line is one JSON object, or one line for a person, and says what it is about."""

from __future__ import annotations

import io
import json
import logging
import threading
import unittest
from typing import Any

from rtmanager.logs import about, make_logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class LogsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.logger = make_logger(level="debug", style="json", service="rtm", stream=self.stream)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def test_a_line_has_time_level_service_and_message_first(self) -> None:
        self.logger.info("serving on %s", "all")
        (line,) = self.lines()
        self.assertEqual(list(line), ["time", "level", "service", "message"])
        self.assertEqual((line["level"], line["service"], line["message"]), ("info", "rtm", "serving on all"))
        self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_levels_have_the_names_of_the_configuration(self) -> None:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            self.logger.log(level, "x")
        self.assertEqual([line["level"] for line in self.lines()], ["debug", "info", "warn", "error", "error"])

    def test_a_logger_says_nothing_below_its_level(self) -> None:
        for level, expected in (("debug", 4), ("info", 3), ("warn", 2), ("error", 1)):
            stream = io.StringIO()
            logger = make_logger(level=level, style="json", service="rtm", stream=stream)
            for method in (logger.debug, logger.info, logger.warning, logger.error):
                method("x")
            self.assertEqual(len(stream.getvalue().splitlines()), expected)

    def test_extra_fields_are_on_their_line_only(self) -> None:
        self.logger.info("one", extra={"game_id": "g1", "n": 3, "path": Terminal})
        self.logger.info("two")
        one, two = self.lines()
        self.assertEqual((one["game_id"], one["n"]), ("g1", 3))
        self.assertIn("Terminal", one["path"])
        self.assertNotIn("game_id", two)

    def test_within_a_block_every_line_says_what_it_is_about(self) -> None:
        with about(game_id="g1", operation_id=7):
            self.logger.info("one")
            with about(operation_id=8, op_source="gm_rest"):
                self.logger.info("two")
            self.logger.info("three", extra={"operation_id": 9})
        self.logger.info("four")
        found = [(x.get("game_id"), x.get("operation_id"), x.get("op_source")) for x in self.lines()]
        self.assertEqual(found, [("g1", 7, None), ("g1", 8, "gm_rest"), ("g1", 9, None), (None, None, None)])

    def test_the_block_ends_with_an_error_too(self) -> None:
        with self.assertRaises(ZeroDivisionError), about(game_id="g1"):
            raise ZeroDivisionError
        self.logger.info("after")
        self.assertNotIn("game_id", self.lines()[0])

    def test_another_thread_is_about_something_else(self) -> None:
        with about(game_id="g1"):
            thread = threading.Thread(target=self.logger.info, args=("there",))
            thread.start()
            thread.join()
        self.assertNotIn("game_id", self.lines()[0])

    def test_an_exception_is_on_the_same_line_with_its_traceback(self) -> None:
        try:
            raise ZeroDivisionError("what\nnow")
        except ZeroDivisionError:
            self.logger.exception("failed")
        (line,) = self.lines()
        self.assertIn("Traceback", line["traceback"])
        self.assertIn("ZeroDivisionError: what\nnow", line["traceback"])

    def test_foreign_text_stays_on_one_line(self) -> None:
        self.logger.info("a\nb", extra={"error": 'c\n{"level":"error"}'})
        (line,) = self.lines()
        self.assertEqual((line["message"], line["error"]), ("a\nb", 'c\n{"level":"error"}'))

    def test_a_terminal_gets_readable_lines_and_a_file_json(self) -> None:
        terminal = Terminal()
        logger = make_logger(level="info", style="auto", service="rtm", stream=terminal)
        with about(game_id="g1"):
            logger.warning("careful", extra={"n": 1})
        self.assertRegex(terminal.getvalue(), r"^\d\d:\d\d:\d\d\.\d{3} warn  careful  game_id=g1  n=1\n$")
        make_logger(level="info", style="auto", service="rtm", stream=self.stream).info("x")
        self.assertEqual(self.lines()[0]["message"], "x")

    def test_text_and_json_can_be_asked_for_anywhere(self) -> None:
        terminal = Terminal()
        make_logger(level="info", style="json", service="rtm", stream=terminal).info("x")
        self.assertEqual(json.loads(terminal.getvalue())["message"], "x")
        make_logger(level="info", style="text", service="rtm", stream=self.stream).info("x")
        self.assertNotIn("{", self.stream.getvalue())

    def test_a_traceback_stands_below_a_readable_line(self) -> None:
        logger = make_logger(level="info", style="text", service="rtm", stream=self.stream)
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("failed")
        first, second, *_ = self.stream.getvalue().splitlines()
        self.assertTrue(first.endswith("failed"))
        self.assertTrue(second.startswith("Traceback"))

    def test_two_loggers_do_not_share_their_lines(self) -> None:
        other = io.StringIO()
        make_logger(level="info", style="json", service="two", stream=other).info("there")
        self.assertEqual(self.stream.getvalue(), "")
        self.assertEqual(json.loads(other.getvalue())["service"], "two")
