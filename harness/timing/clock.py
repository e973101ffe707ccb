"""Recording and report, enabled by RTM_IT_TIMING=1 and without cost otherwise."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from harness.errors import HarnessError
from harness.timing import report
from harness.timing.spans import Spans

VARIABLE = "RTM_IT_TIMING"

#: A directory where each process of a run writes its records, for `python -m harness timing DIRECTORY`.
DIRECTORY_VARIABLE = "RTM_IT_TIMING_DIR"

#: Seconds in which the relay ends after its standard input.
RELAY_END_S = 10.0


def enabled() -> bool:
    """Whether this run records where its time goes."""
    return os.environ.get(VARIABLE) == "1"


@contextmanager
def span(what: str) -> Iterator[None]:
    """Record the block as `what`, which has its own line in the report."""
    if enabled():
        with _spans().span(what):
            yield
    else:
        yield


def relayed(daemon: str) -> str:
    """The address to use for `daemon`: the relay's, or its own when recording is off."""
    return _relay(daemon).address if enabled() else daemon


@dataclass(frozen=True)
class _Relay:
    directory: Path
    process: "subprocess.Popen[str]"

    @property
    def address(self) -> str:
        return f"unix://{self.directory / 'docker.sock'}"

    @property
    def journal(self) -> Path:
        return self.directory / "journal"


@cache
def _relay(daemon: str) -> _Relay:
    if not daemon.startswith(("unix://", "tcp://")) or os.environ.get("DOCKER_TLS_VERIFY"):
        raise HarnessError(f"{VARIABLE}=1 works with a plain socket, unix:// or tcp://, and not with {daemon}")
    directory = Path(tempfile.mkdtemp(prefix="rtm-timing-"))
    command = [sys.executable, "-m", "harness.timing.relay", str(directory / "docker.sock"), daemon]
    process = subprocess.Popen(
        [*command, str(directory / "journal")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C ends the run; the clean-up still needs the relay
    )
    assert process.stdout is not None
    if process.stdout.readline() != "listening\n":
        raise HarnessError(f"the timing relay did not come up, exit code {process.wait()}")
    return _Relay(directory, process)


@cache
def _spans() -> Spans:
    from harness.runs.identity import process_start_time

    ticks = process_start_time(os.getpid()) or 0
    return Spans(ticks / os.sysconf("SC_CLK_TCK"), "tests, unittest and imports")


def report_at_exit(daemon: str) -> None:
    """Print the report when the process ends, after the exit hooks that are registered later."""
    from harness.runs.identity import at_exit

    if enabled():
        at_exit(partial(_report, _relay(daemon)))


def _report(relay: _Relay) -> None:
    spans = _spans()
    spans.turn("")
    relay.process.communicate(timeout=RELAY_END_S)
    with relay.journal.open() as journal:
        sys.stderr.write(f"\n{report.table(list(report.read(journal)), spans.segments)}\n")
    if directory := os.environ.get(DIRECTORY_VARIABLE):
        whole = f"{spans.segments[0].began} {spans.segments[-1].ended}\n"
        Path(directory, f"{os.getpid()}.timing").write_text(whole + relay.journal.read_text())
    for path in relay.directory.iterdir():
        path.unlink()
    relay.directory.rmdir()
