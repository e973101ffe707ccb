"""A runner is distinguished from every other, dead or alive; in doubt it counts as alive."""

import ast
import json
import os
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from harness.runs import identity

ROOT = Path(__file__).parents[2]
#: The functions that return a child process's environment.
GIVERS = {"child_environment", "whole_environment", "environment"}


class ChildrenTest(unittest.TestCase):
    def test_a_child_has_all_variables_but_those_that_are_left_out(self) -> None:
        with mock.patch.dict(os.environ, {"HOME": "/h", "LD_LIBRARY_PATH": "/l", "SHOP_A": "1", "SHOP": "2"}):
            made = identity.child_environment({"HOME": "/other"}, without=("SHOP_",))
        self.assertEqual((made["HOME"], made["LD_LIBRARY_PATH"], made["SHOP"]), ("/other", "/l", "2"))
        self.assertNotIn("SHOP_A", made)
        self.assertEqual(json.loads(made[identity.PROCESS_VARIABLE]), identity.current().labels())

    def test_no_process_is_started_with_an_environment_of_its_own_making(self) -> None:
        found = []
        for folder in ("harness", "integration", "bench", "reliability"):
            for file in sorted((ROOT / folder).rglob("*.py")):
                # Programs of the machine's set-up outlive this run, so they must not have its mark.
                if not {"tests", "machine"} & set(file.parts):
                    found += [f"{file.relative_to(ROOT)}:{line}" for line in odd_environments(file.read_text())]
        self.assertEqual(found, [])

    def test_one_that_does_is_found(self) -> None:
        odd = 'subprocess.run([], env={"PATH": path})\nPopen([], env=os.environ)\nrun([], env=made)\n'
        self.assertEqual(odd_environments(odd), [1, 2, 3])
        self.assertEqual(odd_environments("made = identity.child_environment()\nrun([], env=made)\nPopen([])\n"), [])


def odd_environments(source: str) -> list[int]:
    """The lines of calls that start a process with an environment that is not from one of `GIVERS`."""
    tree = ast.parse(source)
    given = {
        target.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign) and _is_given(each.value)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    starts = {"run", "Popen", "check_output", "check_call", "call"}
    odd = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _name(call.func) in starts:
            values = [each.value for each in call.keywords if each.arg == "env"]
            odd += [call.lineno for value in values if not _is_given(value) and _name(value) not in given]
    return odd


def _is_given(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and _name(value.func) in GIVERS


def _name(value: ast.expr) -> str:
    return value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""


class RunnerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.here = identity.current()

    def test_labels_name_the_runner_again(self) -> None:
        self.assertEqual(identity.Runner.from_labels(self.here.labels()), self.here)

    def test_foreign_or_damaged_labels_name_nobody(self) -> None:
        self.assertIsNone(identity.Runner.from_labels({"com.example": "x"}))
        damaged = self.here.labels() | {f"{identity.PREFIX}pid": "not a number"}
        self.assertIsNone(identity.Runner.from_labels(damaged))

    def test_a_live_process_is_not_gone(self) -> None:
        self.assertFalse(self.here.is_gone())

    def test_an_ended_process_is_gone(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        started = identity.process_start_time(process.pid)
        assert started is not None
        other = replace(self.here, pid=process.pid, start_time=started)
        self.assertFalse(other.is_gone())
        process.communicate()
        self.assertTrue(other.is_gone())

    def test_a_pid_that_is_used_again_is_not_the_same_process(self) -> None:
        self.assertTrue(replace(self.here, start_time=self.here.start_time - 1).is_gone())

    def test_a_process_before_the_reboot_is_gone(self) -> None:
        self.assertTrue(replace(self.here, boot="another").is_gone())

    def test_what_cannot_be_known_from_here_is_not_gone(self) -> None:
        ended = replace(self.here, start_time=self.here.start_time - 1)
        self.assertFalse(replace(ended, pid_namespace="another").is_gone())
        self.assertFalse(replace(ended, machine="another", boot="another").is_gone())

    def test_a_process_that_this_user_may_not_see_is_not_gone(self) -> None:
        """/proc mounted with hidepid shows nothing of other users; a signal shows that a process exists."""
        hidden = replace(self.here, pid=2**22 + 1)
        self.assertTrue(hidden.is_gone())
        with mock.patch("os.kill", side_effect=PermissionError):
            self.assertFalse(hidden.is_gone())

    def test_a_forked_child_has_an_identity_of_its_own(self) -> None:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, identity.current().run.encode())
            os._exit(0)
        os.waitpid(child, 0)
        self.assertNotEqual(os.read(read, 100).decode(), self.here.run)
        os.close(read)
        os.close(write)

    def test_threads_that_call_first_at_the_same_time_are_one_runner(self) -> None:
        script = (
            "from concurrent.futures import ThreadPoolExecutor as T; from threading import Barrier\n"
            "from harness.runs import identity\n"
            "b = Barrier(8)\n"
            "print(len({each.run for each in T(8).map(lambda _: (b.wait(), identity.current())[1], range(8))}))"
        )
        for _ in range(5):
            result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            self.assertEqual(result.stdout, "1\n")

    def test_a_program_name_with_brackets_does_not_mislead(self) -> None:
        self.assertIsInstance(identity.process_start_time(1), int)
        self.assertIsNone(identity.process_start_time(2**22 + 1))
