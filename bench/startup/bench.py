"""The start-up bench: from the start of the process to its first `ready`, with all files in the page cache.

The reference is a floor: no service that uses these packages for Docker, PostgreSQL and Redis is ready earlier. A
manager also imports its own modules, reads its environment, checks each dependency, checks for migrations, opens its
connections, makes the first pass of the reconciler, and answers over HTTP.
"""

import compileall
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from bench.catalogue import Bench
from bench.comparison import Contest, Goal, Sample, Side
from bench.docker import prepared_docker
from bench.errors import BenchError
from bench.synthetic import platform
from bench.synthetic.platform import Platform
from harness.rtm.manager import ManagerProcess

ROUNDS = 8
GAMES = 10

#: Seconds between two requests to /readyz: little compared with the measurement.
POLL_INTERVAL_S = 0.002
#: Seconds to wait for readiness.
READY_S = 30.0

IMPORTS = "import docker, psycopg, redis"

GOAL = Goal(median=2.5)


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    prepared_docker()
    # As in an installed package, also where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir("rtmanager", quiet=1)
    return Bench(
        contests=_contests,
        notes={
            "ready": "GET /readyz answers 200: every dependency has answered, the first reconcile is over",
            "what it is started on": f"real PostgreSQL and Redis, {GAMES} games, a daemon that plays their containers",
            "compared with": f'python -c "{IMPORTS}", from its start to its end',
        },
    )


def _contests() -> Iterator[Contest]:
    with platform.running(GAMES) as here:
        yield Contest(
            "process start to ready",
            Side("the manager", partial(_manager, here)),
            [Side("the imports alone", _imports)],
            rounds=ROUNDS,
            goals={"wall": GOAL},
        )


def _manager(here: Platform) -> Sample:
    began, worked = time.perf_counter(), _children_cpu_s()
    with here.manager() as process:
        _wait_until_ready(process)
        ready = time.perf_counter()
    return {"wall": ready - began, "CPU": _children_cpu_s() - worked}


def _imports() -> Sample:
    began, worked = time.perf_counter(), _children_cpu_s()
    if subprocess.run([sys.executable, "-c", IMPORTS], check=False).returncode:
        raise BenchError("the packages of the service cannot be imported; the reason is above")
    return {"wall": time.perf_counter() - began, "CPU": _children_cpu_s() - worked}


def _wait_until_ready(process: ManagerProcess) -> None:
    """Poll more often than the harness's own wait, which saves processor time."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.exit_code is None:
        with suppress(ConnectionRefusedError):
            if _is_ready(process.address):
                return
        time.sleep(POLL_INTERVAL_S)
    raise BenchError(f"the manager did not become ready\n{process.log_tail()}")


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=READY_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    finally:
        connection.close()


def _children_cpu_s() -> float:
    """Seconds of processor time of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system
