"""Managers forked from a process that has imported everything: a run starts hundreds.

Each is a separate process, with its own environment and log. It ends as `python -m rtmanager serve` does, and with the
test's process at the latest.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.errors import WaitFailed
from harness.fixtures.closing import Closing
from harness.fixtures.container import HTTP_NOT_YET, http_ok
from harness.fixtures.log_tail import log_tail
from harness.rtm.manager import READY_TIMEOUT_S
from harness.waiting import wait_until

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["rtmanager.cli", "rtmanager.bootstrap.app"])


class Manager(Closing):
    """A started manager."""

    def __init__(self, environment: Mapping[str, str], address: tuple[str, int], log: Path) -> None:
        self._address = address
        self._log = log
        self._process = _FORKS.Process(target=_serve, args=(dict(environment), str(log)))
        self._process.start()

    @property
    def base_url(self) -> str:
        """The base URL of its REST interface."""
        return "http://{}:{}".format(*self._address)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait_until_ready(self) -> None:
        """Wait for GET /readyz to return 200; raises WaitFailed, at once when the process has ended."""
        wait_until(
            f"{self.base_url}/readyz answering 200",
            lambda: http_ok(*self._address, "/readyz"),
            timeout_s=READY_TIMEOUT_S,
            retry_on=HTTP_NOT_YET,
            hopeless=self._why_ended,
        )

    def send(self, name: str) -> None:
        """Send it the signal SIG`name`; does nothing when it has ended."""
        if self.exit_code is None and self._process.pid is not None:
            os.kill(self._process.pid, signal.Signals[f"SIG{name}"])

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; return its exit code. Raises WaitFailed."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise WaitFailed(f"the manager did not end within {timeout_s:g} s\n{log_tail(self._log)}")
        return self._process.exitcode

    def close(self) -> None:
        """Send SIGKILL and wait for its end; does nothing when it has ended."""
        self._process.kill()
        self._process.join()

    def _why_ended(self) -> str | None:
        return None if self.exit_code is None else f"the process ended with exit code {self.exit_code}"


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
        raise RuntimeError("a manager of the nursery was not started by multiprocessing")
    test.join()
    os.kill(os.getpid(), signal.SIGKILL)
