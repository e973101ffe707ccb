"""Run test modules side by side in a few processes: `python -m harness.runs.parallel --jobs N MODULE…`.

Each process takes the next module when it is done with one, so that its servers start once and not once a module.
Modules begin in the order given: name the longest first. The output of a module is printed when the module has ended,
that of failed modules at the end of all.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from typing import IO

from harness.runs import cleanup


@dataclass(frozen=True)
class Ended:
    """The result of one module."""

    module: str
    tests: int
    passed: bool
    skipped: int = 0
    #: CPU time of the module and of the processes that it awaited; Docker's own is not in it.
    cpu_s: float = 0


class Worker:
    """A process that runs modules one after the other; a new one takes its place when a test ends it."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] = TemporaryFile()  # noqa: SIM115 - `end` closes it

    def run(self, module: str) -> tuple[Ended, str]:
        """Run one module; returns its result and everything that it wrote."""
        process = self._process or self._begin()
        assert process.stdin is not None and process.stdout is not None
        begin = self._written()
        try:
            process.stdin.write(f"{module}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            ended = Ended(**json.loads(answer))
        else:
            self._process = None
            ended = Ended(module, 0, passed=False)
        text = self._text(begin)
        return ended, text if answer else f"{text}the process ended with exit code {process.wait()}\n"

    def end(self) -> str:
        """Let the process end and clean up; returns what it wrote then."""
        process, self._process = self._process, None
        begin = self._written()
        if process is not None:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        with self._log:
            return self._text(begin)

    def terminate(self) -> None:
        """Send SIGTERM: the module under way unwinds, and the process cleans up."""
        if self._process is not None:
            self._process.terminate()

    def _written(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _text(self, begin: int) -> str:
        """Return what was written since `begin`."""
        return os.pread(self._log.fileno(), self._written() - begin, begin).decode(errors="replace")

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness.runs.parallel", "--worker", *self._options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        return self._process


def run(modules: Sequence[str], jobs: int, options: Sequence[str] = ()) -> Iterator[tuple[Ended, str]]:
    """Run modules in `jobs` processes; yields results and output as modules end."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for module in modules:
        waiting.put(module)
    results: SimpleQueue[tuple[Ended, str] | None] = SimpleQueue()
    workers = [Worker(options) for _ in range(min(jobs, len(modules)))]
    threads = [threading.Thread(target=_work, args=(worker, waiting, results)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            if (result := results.get()) is None:
                left -= 1
            else:
                yield result
    finally:
        with suppress(Empty):  # after Ctrl-C or SIGTERM no further module begins
            while True:
                waiting.get_nowait()
        if left:
            for worker in workers:
                worker.terminate()
        for thread in threads:
            thread.join()


def _work(worker: Worker, waiting: SimpleQueue[str], results: SimpleQueue[tuple[Ended, str] | None]) -> None:
    """Run modules until none waits; None is the worker's last result."""
    try:
        while True:
            results.put(worker.run(waiting.get_nowait()))
    except Empty:
        if text := worker.end():
            results.put((Ended("its end", 0, passed=True), text))
    finally:
        results.put(None)


def serve(verbosity: int) -> None:
    """Run the modules that standard input names, one a line, and answer each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.set_threshold(20_000, 20, 20)  # many modules stay loaded, and each collection goes through them
    for line in sys.stdin:
        module, begun_cpu_s = line.strip(), _cpu_s()
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
        result = unittest.TextTestRunner(verbosity=verbosity).run(suite)
        skipped, cpu_s = len(result.skipped), _cpu_s() - begun_cpu_s
        ended = Ended(module, result.testsRun, result.wasSuccessful(), skipped, round(cpu_s, 1))
        sys.stdout.flush()
        answers.write(json.dumps(asdict(ended)) + "\n")
        answers.flush()


def _cpu_s() -> float:
    return sum(os.times()[:4])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.runs.parallel", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument(
        "--jobs", "-j", type=int, default=2 * (os.cpu_count() or 1), help="processes (default: 2 a CPU)"
    )
    parser.add_argument("--verbose", "-v", action="store_true", help="name each test")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    cleanup.unwind_on_sigterm()
    if given.worker:
        serve(2 if given.verbose else 1)
        return 0
    if not given.modules or given.jobs < 1:
        parser.error("name at least one module, and at least one process")
    tests = skipped = 0
    failed: dict[str, str] = {}
    try:
        for ended, text in run(given.modules, given.jobs, ["--verbose"] if given.verbose else []):
            tests, skipped = tests + ended.tests, skipped + ended.skipped
            if not ended.passed:
                failed[ended.module] = text
                text = "failed, see below\n"
            sys.stderr.write(f"== {ended.module}, {ended.cpu_s} s of CPU time\n{text}")
            sys.stderr.flush()
    finally:  # also after Ctrl-C
        sys.stderr.writelines(f"== failed: {module}\n{text}" for module, text in failed.items())
    sys.stderr.write(
        f"== {tests} tests in {len(given.modules)} modules, {skipped} skipped; failed: {', '.join(failed) or 'none'}\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
