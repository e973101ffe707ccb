"""The managers of a run, each with its own proxies to the servers, supervised like services.

The end of a healthy manager by itself is a defect, and is recorded as a complaint. A manager that cannot start because
a server is down is restarted until it can.
"""

import http.client
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.errors import WaitFailed
from harness.fixtures.closing import Closing
from harness.rtm import manager
from harness.rtm.lines import Lines
from harness.rtm.manager import ManagerProcess
from harness.rtm.stack import Stack
from harness.runs import identity
from integration.support import shifted
from reliability.chaos.history import History

#: Seconds between two checks of the processes.
POLL_S = 0.2

#: Seconds for an orderly end: the manager's own limit, plus the timeouts for silent servers.
END_TIMEOUT_S = 60.0


class Instance(Closing):
    """One manager; `lines` are its proxies to the servers."""

    def __init__(self, number: int, here: Stack, settings: Mapping[str, str], code: str) -> None:
        self.number = number
        self.log = here.state_root.logs / f"manager-{number}.log"
        self.complaints: list[str] = []
        self.starts = 0
        #: Seconds by which its host's clock is off, from its next start on.
        self.clock_off_s = 0
        #: The directory of the release that it runs, from its next start on; this one when empty.
        self.code = code
        self.lines = Lines(here.database, here.redis, here.environment["RTMANAGER_DOCKER_HOST"])
        self._environment = {**here.environment, **settings, **self.lines.environment}
        self._lock = threading.RLock()
        self._wanted = self._frozen = self._was_well = False
        self._process: ManagerProcess | None = None

    @property
    def base_url(self) -> str:
        """The base URL of its REST interface, also while it is down."""
        process = self._process
        return process.base_url if process else "http://127.0.0.1:9"

    def start(self) -> None:
        """Start it, and restart it from now on when it ends."""
        with self._lock:
            self._wanted = True
            self._begin()

    def kill(self) -> None:
        """kill -9; it stays down until `start`."""
        with self._lock:
            self._wanted = self._frozen = False
            if self._process:
                self._process.kill()

    def terminate(self) -> int:
        """Send SIGTERM, and return its exit code; it stays down until `start`."""
        with self._lock:
            self._wanted = False
            process = self._process
            if process is None or process.exit_code is not None:
                return 0
            was_well = self._was_well
            try:
                code = process.terminate(END_TIMEOUT_S)
            except WaitFailed as failure:
                self.complaints.append(f"instance {self.number}: {failure}")
                return -9
            if was_well and code != 0:
                self.complaints.append(f"instance {self.number} ended with exit code {code} after SIGTERM")
            return code

    def freeze(self) -> None:
        """Send SIGSTOP: it keeps everything it owns, and does nothing, until `thaw`."""
        with self._lock:
            if self._process:
                self._frozen = True
                self._process.send("STOP")

    def thaw(self) -> None:
        """Send SIGCONT."""
        with self._lock:
            self._frozen = False
            if self._process:
                self._process.send("CONT")

    @property
    def seems_well(self) -> bool:
        """Whether it runs and has answered since its start; it may be frozen, or about to end."""
        return self._wanted and self._was_well and self._process is not None and self._process.exit_code is None

    def tend(self) -> None:
        """Record that it is ready, or restart it when it has ended."""
        if not self._lock.acquire(blocking=False):
            return  # another thread is controlling it
        try:
            process = self._process
            if not self._wanted or process is None:
                return
            if process.exit_code is None:
                self._was_well = self._was_well or (not self._frozen and _answers(process))
                return
            if self._was_well:
                self.complaints.append(f"instance {self.number} ended by itself with exit code {process.exit_code}")
            self._begin()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Kill it, and close its proxies."""
        self.kill()
        self.lines.close()

    def _begin(self) -> None:
        if self._process and self._process.exit_code is None:
            return
        self.starts += 1
        self._was_well = self._frozen = False
        address = manager.free_address()
        environment = {**self._environment, manager.ADDRESS_VARIABLE: address}
        if self.code:  # before the current directory, which is first with `-m`
            environment |= {**identity.python_path(Path(self.code)), "PYTHONSAFEPATH": "1"}
        command = shifted.command(self.clock_off_s, "serve") if self.clock_off_s else manager.COMMAND
        self._process = manager.start(environment, self.log, command, echo=False)


def _answers(process: ManagerProcess) -> bool:
    host, _, port = process.address.rpartition(":")
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=1)
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Supervisor(Closing):
    """Tends the instances from a thread until `close`."""

    def __init__(self, instances: list[Instance], history: History) -> None:
        self._instances = instances
        self._history = history
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(POLL_S):
            for each in self._instances:
                before_it = each.starts
                try:
                    each.tend()
                except subprocess.SubprocessError as error:
                    each.complaints.append(f"instance {each.number} could not be started: {error}")
                if each.starts != before_it:
                    self._history.note("supervisor", "started again", instance=each.number)
