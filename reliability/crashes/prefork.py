"""Managers forked from a process that has imported everything: a run starts hundreds.

Each is a separate process, with its own environment and log. It ends as `python -m rtmanager serve` does, and with the
test's process at the latest.
"""

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.rtm.manager import ADDRESS_VARIABLE, ManagerProcess

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["rtmanager.cli", "rtmanager.bootstrap.app"])


class _Fork:
    """A started manager with the interface of a `subprocess.Popen`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._process = _FORKS.Process(target=_serve, args=(dict(environment), str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("serve", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def start(environment: Mapping[str, str], log: Path) -> ManagerProcess:
    """Start a manager; does not wait until it is ready."""
    return ManagerProcess(_Fork(environment, log), environment[ADDRESS_VARIABLE], log)


def _serve(environment: dict[str, str], log: str) -> None:
    """Runs in the new process, as `python -m rtmanager serve` does."""
    threading.Thread(target=_end_with_the_test, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from rtmanager import cli

    code = cli.main(["serve"], environment)
    os._exit(code)


def _end_with_the_test() -> None:
    """End this process with the test's. PR_SET_PDEATHSIG does not work: the parent is the fork server."""
    test = multiprocessing.parent_process()
    if test is None:
        raise RuntimeError("a manager of the fork server was not started by multiprocessing")
    test.join()
    os.kill(os.getpid(), signal.SIGKILL)
