"""A Runtime Manager as a process of its own, for what only a process can show: signals, exit codes, kill -9.

    with manager.start(environment, log=path) as process:
        process.wait_until_ready()

Its environment is what the test gives; its log goes to a file, whose last lines are in the failure when it
does not come up, and with `echo` to the terminal as well. A manager whose runner was killed is found by its
environment and swept.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from harness import live, runner, timing
from harness.container import HTTP_NOT_YET, http_ok
from harness.errors import WaitFailed
from harness.listening import LOOPBACK, free_port
from harness.waiting import wait_until

COMMAND = (sys.executable, "-m", "rtmanager", "serve")

ADDRESS_VARIABLE = "RTMANAGER_INTERNAL_HTTP_ADDR"
DEFAULT_ADDRESS = ":8096"

#: Migrations, the first reconcile and a busy machine included.
READY_TIMEOUT_S = 30.0

#: The manager's own limit for an orderly end is 30 s by default.
STOP_TIMEOUT_S = 40.0

LOG_TAIL = 30


@dataclass
class ManagerProcess:
    """A manager that was started."""

    process: "subprocess.Popen[bytes]" = field(repr=False)
    address: str
    log: Path
    _echo: threading.Thread | None = field(default=None, repr=False)

    def __enter__(self) -> "ManagerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def base_url(self) -> str:
        """Where its REST interface is."""
        host, port = self._host_and_port()
        return f"http://{host}:{port}"

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return self.process.poll()

    @timing.span("manager processes coming up")
    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait for GET /readyz to answer 200; raises WaitFailed, at once when the process has ended."""
        host, port = self._host_and_port()
        try:
            wait_until(
                f"{self.base_url}/readyz answering 200",
                lambda: http_ok(host, port, "/readyz"),
                timeout_s=timeout_s,
                retry_on=HTTP_NOT_YET,
                hopeless=self._why_ended,
            )
        except WaitFailed as failure:
            raise WaitFailed(f"{failure}\n{self.log_tail()}") from None

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, then wait for its end; its exit code. Raises WaitFailed, and kills, after `timeout_s`."""
        began = time.monotonic()
        self.process.terminate()
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            waited = time.monotonic() - began
            raise WaitFailed(f"the manager did not end {waited:.0f} s after SIGTERM\n{self.log_tail()}") from None

    def send(self, name: str) -> None:
        """Send it the signal SIG`name`."""
        self.process.send_signal(signal.Signals[f"SIG{name}"])

    def kill(self) -> None:
        """SIGKILL, then wait for its end; nothing happens when it has ended."""
        self.process.kill()
        self.wait()

    @timing.span("manager processes ending")
    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end by itself; its exit code. Raises subprocess.TimeoutExpired."""
        code = self.process.wait(timeout_s)
        if self._echo is not None:
            self._echo.join()
        return code

    def log_tail(self) -> str:
        """Its last log lines, as a text for a failure."""
        return log_tail(self.log)

    def _why_ended(self) -> str | None:
        code = self.exit_code
        return None if code is None else f"the process ended with exit code {code}"

    def _host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return ("127.0.0.1" if host in ("", "0.0.0.0") else host.strip("[]")), int(port)


def start(
    environment: Mapping[str, str], log: Path, command: Sequence[str] = COMMAND, *, echo: bool | None = None
) -> ManagerProcess:
    """Start a manager; returns without waiting for it.

    `environment` is laid over the runner's own, less every RTMANAGER_ variable of it. The log is appended to,
    so that the log of a manager that is started again stays in one file. `echo` shows it on the terminal, too;
    by default RTM_IT_LOG decides.
    """
    echoes = live.echoes() if echo is None else echo
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command),
            env=whole_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if echoes else out,
            stderr=subprocess.STDOUT,
        )
    address = environment.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS)
    return ManagerProcess(process, address, log, _echo(process.stdout, log) if process.stdout else None)


def _echo(output: IO[bytes], log: Path) -> threading.Thread:
    """A thread that writes what comes to the log and to the terminal, until the process has ended."""

    def copy() -> None:
        with output, log.open("ab", buffering=0) as file:
            for line in output:
                file.write(line)
                sys.stderr.buffer.write(line)
                sys.stderr.flush()

    thread = threading.Thread(target=copy, name="manager-echo", daemon=True)
    thread.start()
    return thread


def log_tail(log: Path) -> str:
    """The last lines of a manager's log, as a text for a failure."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if log.exists() else []
    return "\n".join([f"  last lines of {log}:", *(f"    {line}" for line in lines or ["(nothing)"])])


def whole_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a manager's process is given: `environment` over the runner's own, less its RTMANAGER_ variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RTMANAGER_")}
    return {**inherited, **environment, **runner.current().environment()}


def free_address() -> str:
    """A loopback address whose port nothing listens on just now, for ADDRESS_VARIABLE."""
    return f"{LOOPBACK}:{free_port()}"
