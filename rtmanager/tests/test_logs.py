"""A log line is one JSON object of bounded size, or one line of text, and names its subject."""

from __future__ import annotations

import io
import json
import logging
import random
import signal
import sys
import threading
import unittest
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

from rtmanager import log_values, logs
from rtmanager.logs import LINE_BYTES, about, flush, make_logger
from rtmanager.tests.operating import PATIENCE_S


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(logger: logging.Logger, stream: io.StringIO) -> str:
    """The text that a logger has written so far."""
    if not flush(logger, PATIENCE_S):
        raise AssertionError("the log was not written")
    return stream.getvalue()


def refuse(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


class LogsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.logger = make_logger(level="debug", style="json", service="rtm", stream=self.stream)

    def lines(self) -> list[dict[str, Any]]:
        """Each line decoded; a line that is too long or invalid JSON fails the test."""
        lines = written(self.logger, self.stream).splitlines()
        self.assertLessEqual(max((len(line.encode()) for line in lines), default=0), LINE_BYTES)
        return [json.loads(line, parse_constant=refuse) for line in lines]


class LogsTest(LogsTestCase):
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

    def test_a_logger_emits_nothing_below_its_level(self) -> None:
        for level, expected in (("debug", 4), ("info", 3), ("warn", 2), ("error", 1)):
            stream = io.StringIO()
            logger = make_logger(level=level, style="json", service="rtm", stream=stream)
            for method in (logger.debug, logger.info, logger.warning, logger.error):
                method("x")
            self.assertEqual(len(written(logger, stream).splitlines()), expected)

    def test_extra_fields_are_on_their_line_only(self) -> None:
        self.logger.info("one", extra={"game_id": "g1", "n": 3, "path": Terminal})
        self.logger.info("two")
        one, two = self.lines()
        self.assertEqual((one["game_id"], one["n"]), ("g1", 3))
        self.assertIn("Terminal", one["path"])
        self.assertNotIn("game_id", two)

    def test_within_a_block_every_line_has_what_it_is_about(self) -> None:
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
        self.assertRegex(written(logger, terminal), r"^\d\d:\d\d:\d\d\.\d{3} warn  careful  game_id=g1  n=1\n$")
        logger = make_logger(level="info", style="auto", service="rtm", stream=self.stream)
        logger.info("x")
        self.assertEqual(json.loads(written(logger, self.stream))["message"], "x")

    def test_text_and_json_can_be_requested_anywhere(self) -> None:
        terminal = Terminal()
        logger = make_logger(level="info", style="json", service="rtm", stream=terminal)
        logger.info("x")
        self.assertEqual(json.loads(written(logger, terminal))["message"], "x")
        logger = make_logger(level="info", style="text", service="rtm", stream=self.stream)
        logger.info("x")
        self.assertNotIn("{", written(logger, self.stream))

    def test_a_traceback_stands_below_a_readable_line(self) -> None:
        logger = make_logger(level="info", style="text", service="rtm", stream=self.stream)
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("failed")
        first, second, *_ = written(logger, self.stream).splitlines()
        self.assertTrue(first.endswith("failed"))
        self.assertTrue(second.startswith("Traceback"))

    def test_two_loggers_do_not_share_their_lines(self) -> None:
        other = io.StringIO()
        logger = make_logger(level="info", style="json", service="two", stream=other)
        logger.info("there")
        self.assertEqual(json.loads(written(logger, other))["service"], "two")
        self.assertEqual(written(self.logger, self.stream), "")


class Raising:
    """An object whose text and class both raise."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__
    __class__ = property(lambda self: 1 // 0)


class NotText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Endless(dict[str, object]):
    def items(self) -> Any:
        raise RuntimeError("no items")


def recursive() -> list[object]:
    made: list[object] = [1]
    made.append(made)
    return made


def deep() -> object:
    made: object = 0
    for _ in range(100_000):
        made = [made]
    return made


class HostileTest(LogsTestCase):
    """Any content becomes one line of JSON, and logging never raises."""

    def test_values_that_json_lacks_are_shown_as_text(self) -> None:
        values: dict[str, object] = {
            "nan": float("nan"),
            "nested_nan": {"a": [float("inf"), -float("inf")]},
            "bytes": b"a\x00\xff" * 100_000,
            "view": memoryview(b"abc"),
            "huge_integer": 10**5000,
            "huge_in_a_list": [1 << 4096],
            "recursive": recursive(),
            "deep": deep(),
            "many": list(range(100_000)),
            "wide": {str(number): {str(inner): "x" * 1000 for inner in range(100)} for number in range(100)},
            "keys": {("a", 1): 1, None: 2, b"c": 3, "k" * 100_000: 4},
            "raising": Raising(),
            "raising_in_a_list": [Raising()],
            "raising_key": {Raising(): 1},
            "not_text": NotText(),
            "endless": Endless(a=1),
            "set": {1, 2},
            "error": ValueError("what"),
            "kind": ValueError,
        }
        for name, value in values.items():
            with self.subTest(name):
                self.logger.info("x", extra={name: value})
        lines = {list(line)[-1]: line for line in self.lines()}
        self.assertEqual(set(lines), set(values))
        self.assertEqual(lines["nan"]["nan"], "nan")
        self.assertEqual(lines["nested_nan"]["nested_nan"], {"a": ["inf", "-inf"]})
        self.assertEqual(lines["raising"]["raising"], "(no text of Raising: ZeroDivisionError)")
        self.assertEqual(lines["huge_integer"]["huge_integer"], "(an integer of 16610 bits)")
        self.assertIn("100000 items", json.dumps(lines["many"], ensure_ascii=False))

    def test_text_of_any_kind_is_one_line_that_every_reader_takes(self) -> None:
        texts = (
            "a\x00b",
            "lone \ud800 surrogate",
            "\udcff",
            "\u2028\u2029\x85\x0b\x0c\x1c",
            "\x1b[2J\x9b2J\x7f",
            "txt\u202eexe.\u2066\u2069",
            "é✓🙂",
        )
        for text in texts:
            self.logger.info(text, extra={"field": text, text: 1})
        raw = written(self.logger, self.stream)
        self.assertEqual(len(raw.splitlines()), len(texts))
        self.assertNotRegex(raw, "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
        found = self.lines()
        self.assertEqual([line["field"] for line in found], [line["message"] for line in found])
        self.assertEqual(found[0]["field"], "a\x00b")
        self.assertEqual(found[1]["field"], "lone \ufffd surrogate")
        self.assertEqual(found[6]["field"], "é✓🙂")

    def test_every_part_is_cut_and_has_its_former_length(self) -> None:
        for character in ("a", "\x00", '"', "🙂", "\u2028", "\ud800"):
            text = character * 300_000
            try:
                raise ValueError(text)
            except ValueError:
                self.logger.exception(text, extra={"field": text, text: text, **{f"n{i}": text for i in range(30)}})
            line = self.lines()[-1]
            self.assertIn("(300000 characters)", line["message"])
            self.assertIn("(300000 characters)", line["field"])
            self.assertIn("ValueError", line["traceback"])
            self.assertGreater(line["fields_left_out"], 0)

    def test_a_long_traceback_keeps_its_beginning_and_its_end(self) -> None:
        def fall(depth: int) -> None:
            if depth:
                fall(depth - 1)
            raise ValueError("\n".join(f"line {number}" for number in range(5000)))

        try:
            try:
                fall(900)
            except ValueError as error:
                raise RuntimeError("the last") from error
        except RuntimeError:
            self.logger.exception("failed")
        trace = self.lines()[0]["traceback"]
        self.assertTrue(trace.startswith("Traceback"))
        self.assertIn("lines are left out", trace)
        self.assertTrue(trace.endswith("RuntimeError: the last"))

    def test_an_exception_whose_text_raises_is_reported_by_its_type(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        for error in (Odd(), ExceptionGroup("many", [Odd() for _ in range(1000)])):
            self.logger.error("failed", exc_info=error)
        for line, word in zip(self.lines(), ("Odd", "ExceptionGroup"), strict=True):
            self.assertIn(word, line["traceback"])

    def test_arguments_that_do_not_fit_are_no_error_of_the_caller(self) -> None:
        self.logger.info("%s and %s", 1)
        self.logger.info("%s", Raising())
        self.logger.info(Raising())
        self.assertEqual(
            [line["message"] for line in self.lines()],
            [
                "%s and %s (with arguments that do not fit: TypeError)",
                "%s",
                "(no text of Raising: ZeroDivisionError) (with arguments that do not fit: RuntimeError)",
            ],
        )

    def test_a_field_may_be_called_like_anything(self) -> None:
        names = (
            "name",
            "msg",
            "args",
            "message",
            "time",
            "level",
            "exc_info",
            "about",
            "asctime",
            "traceback",
            "service",
        )
        self.logger.warning("x", extra={name: f"a {name}" for name in names})
        (line,) = self.lines()
        self.assertEqual((line["message"], line["level"], line["service"]), ("x", "warn", "rtm"))
        self.assertEqual({line[f"{name}_"] for name in names}, {f"a {name}" for name in names})

    def test_a_readable_line_is_one_line_too(self) -> None:
        logger = make_logger(level="info", style="text", service="rtm", stream=self.stream)
        logger.info("a\nb\x1b[2J", extra={"x": "c\r\nd", "y": ["é\n"], "z": Raising(), "w": "🙂" * 300_000})
        (line,) = written(logger, self.stream).splitlines()
        self.assertIn("a\\nb\\x1b[2J  x=c\\r\\nd", line)
        self.assertLess(len(line.encode()), LINE_BYTES)

    def test_a_defect_in_the_making_of_a_line_costs_the_line_and_not_the_caller(self) -> None:
        with mock.patch.object(logs, "as_json", side_effect=[ZeroDivisionError, '"x"']):
            self.logger.info("lost", extra={"field": 1})
        (line,) = self.lines()
        self.assertEqual((line["message"], line["error_type"]), ("a log line could not be made", "x"))

    def test_what_a_value_costs_does_not_grow_with_what_it_holds(self) -> None:
        text = "x" * 50_000_000
        with mock.patch.object(log_values, "_escaped", side_effect=json.dumps) as escaped:
            self.logger.info("x", extra={"field": text})
        self.assertLess(max(len(call.args[0]) for call in escaped.mock_calls), 10_000)


class GeneratedTest(LogsTestCase):
    """Random values, the same in each run."""

    def test_whatever_is_logged_is_one_line_of_json(self) -> None:
        chance = random.Random(13)
        for _ in range(300):
            extra = {self.text(chance): self.value(chance, 0) for _ in range(chance.randrange(5))}
            message = chance.choice([self.text(chance), Raising(), "%s %d", "%(a)s", ValueError("e")])
            arguments = chance.choice([(), (1,), (Raising(),), ({"a": 1},), ("x", 2, 3)])
            error = ValueError(self.text(chance)) if chance.random() < 0.3 else None
            with about(game_id=self.value(chance, 0)):
                self.logger.error(message, *arguments, exc_info=error, extra=extra)
        lines = self.lines()
        self.assertEqual(len(lines), 300)
        self.assertNotIn("a log line could not be made", {line["message"] for line in lines})

    def text(self, chance: random.Random) -> str:
        alphabet = chance.choice(["abc", "\x00\n\r\x1b", "é✓🙂", "\ud800\udfff", "\u2028\x85\x9b", '"\\'])
        return "".join(chance.choices(alphabet, k=chance.randrange(20))) * chance.choice([1, 1, 1000])

    def value(self, chance: random.Random, level: int) -> object:
        values: list[Callable[[], object]] = [
            lambda: self.text(chance),
            lambda: chance.choice([float("nan"), -0.0, 1e308, None, True, 10 ** chance.randrange(5000)]),
            lambda: chance.randbytes(chance.randrange(300)) * chance.choice([1, 1000]),
            lambda: chance.choice(
                [Raising(), NotText(), Endless(a=1), ValueError(self.text(chance)), object, range(9)]
            ),
            lambda: [self.value(chance, level + 1) for _ in range(chance.randrange(6))] * chance.choice([1, 50]),
            lambda: {
                chance.choice([self.text(chance), 1, None, Raising(), b"k"]): self.value(chance, level + 1)
                for _ in range(chance.randrange(6))
            },
        ]
        return chance.choice(values if level < 6 else values[:4])()


class ProcessTest(unittest.TestCase):
    """Output of the interpreter becomes a log line."""

    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.logger = make_logger(level="info", style="json", service="rtm", stream=self.stream)
        self.failed: list[str] = []
        kept = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning, logging.raiseExceptions
        sigttou, root = signal.getsignal(signal.SIGTTOU), logging.getLogger().handlers

        def restore() -> None:
            sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = kept[:4]
            logging.raiseExceptions = kept[4]
            signal.signal(signal.SIGTTOU, sigttou)
            logging.getLogger().handlers = root

        self.addCleanup(restore)
        logs.adopt_process(self.logger, lambda name, _: self.failed.append(name))

    def line(self) -> dict[str, Any]:
        (line,) = written(self.logger, self.stream).splitlines()
        found: dict[str, Any] = json.loads(line)
        return found

    def test_an_error_that_ends_a_thread(self) -> None:
        thread = threading.Thread(target=lambda: 1 // 0, name="rtm-attention-3")
        thread.start()
        thread.join()
        line = self.line()
        self.assertEqual((line["message"], line["thread_name"]), ("a thread ended by a defect", "rtm-attention-3"))
        self.assertIn("ZeroDivisionError", line["traceback"])
        self.assertEqual(self.failed, ["rtm-attention-3"])

    def test_an_error_that_ends_the_process(self) -> None:
        error = ValueError("why")
        sys.excepthook(ValueError, error, None)
        self.assertIn("ValueError: why", self.line()["traceback"])

    def test_an_error_in_a_destructor(self) -> None:
        class Odd:
            def __del__(self) -> None:
                raise ValueError("too late")

        Odd()
        line = self.line()
        self.assertIn("too late", line["traceback"])
        self.assertIn("__del__", line["object"])

    def test_a_warning(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = warnings.showwarning  # replaces the function that catch_warnings installs
            logs.adopt_process(self.logger, lambda *_: None)
            warnings.warn("old\nhabits", DeprecationWarning, stacklevel=1)
        line = self.line()
        self.assertEqual((line["message"], line["category"]), ("old\nhabits", "DeprecationWarning"))

    def test_a_library_that_nobody_thought_of(self) -> None:
        logs.adopt_libraries(self.logger)
        logging.getLogger("asyncio").error("never retrieved")
        self.assertEqual(self.line()["message"], "never retrieved")
