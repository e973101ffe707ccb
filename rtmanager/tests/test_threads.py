"""Starting threads: the caller never hangs, whatever happens to the new thread."""

import ast
import sys
import threading
import unittest
from pathlib import Path
from unittest import mock

import rtmanager
from rtmanager.threads import Thread

PACKAGE = Path(rtmanager.__file__).parent


class Starting(unittest.TestCase):
    def test_a_thread_that_ends_in_its_bootstrap_is_as_none_and_the_next_one_runs(self) -> None:
        ran = threading.Event()
        lost = Thread(ran.set, "lost")
        with (
            mock.patch.object(threading.Thread, "_bootstrap_inner", side_effect=MemoryError),
            mock.patch.object(sys, "unraisablehook", lambda _: None),
            self.assertRaisesRegex(RuntimeError, "can't start new thread"),
        ):
            lost.start()
        lost.join()
        self.assertFalse(ran.is_set() or lost in threading.enumerate())
        thread = Thread(ran.set, "next")
        thread.start()
        self.assertTrue(ran.wait(10))

    def test_no_thread_of_the_service_is_started_otherwise(self) -> None:
        banned = {"threading.Thread", "threading.Timer", "ThreadPoolExecutor"}
        for path in PACKAGE.rglob("*.py"):
            if {"tests", "fakes"} & set(path.relative_to(PACKAGE).parts):
                continue
            calls = {
                ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            }
            self.assertEqual(calls & banned, set(), path)
