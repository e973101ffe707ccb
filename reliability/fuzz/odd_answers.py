"""Jobs while Docker sends arbitrary answers: each is answered once, and afterwards records and containers agree.

A scripted daemon in front of the real one answers some requests with generated replies: any status, JSON of any shape,
pages, bytes that are no HTTP, truncated answers. The requests and the replies change with every job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

from harness import daemon
from harness.errors import WaitFailed
from harness.fixtures import scripted_daemon
from harness.fixtures.scripted_daemon import Reply
from harness.rtm import manager, stack
from harness.rtm.stack import Stack
from harness.waiting import wait_until
from reliability.fuzz import log_violations

DEFAULT_COUNT = 400

GAMES = 12
SETTINGS = {
    "RTMANAGER_DEFERRAL_LIMIT": "2s",
    "RTMANAGER_RECONCILE_INTERVAL": "1s",
    "RTMANAGER_INSPECT_INTERVAL": "1s",
    "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS": "2",
    "RTMANAGER_LOG_FORMAT": "json",
}
#: Seconds; generous, since a deferred job is retried after five seconds at most, three times.
SETTLED_WITHIN_S = 120.0

CALLS = (
    "GET /version",
    "GET /networks",
    "GET /images/*/json",
    "POST /images/create",
    "POST /containers/create",
    "POST /containers/*/rename",
    "POST /containers/*/start",
    "POST /containers/*/stop",
    "DELETE /containers/*",
    "GET /containers/*/json",
    "GET /containers/json",
    "GET /containers/*/logs",
    "GET /events",
    "* *",
)
STATUSES = (
    200,
    201,
    204,
    301,
    302,
    304,
    400,
    401,
    403,
    404,
    405,
    407,
    408,
    409,
    418,
    429,
    500,
    501,
    502,
    503,
    504,
    599,
)
WORDS = (
    "no space left on device",
    "No such container: x",
    "No such image: y",
    "invalid reference format",
    "conflict",
    "device or resource busy",
    "context canceled",
    "removal of container x is already in progress",
    "client version 9 is too new",
    "did not receive an exit event",
    "",
    "x" * 100_000,
)
KEYS = (
    "Id",
    "State",
    "Config",
    "Name",
    "Names",
    "Labels",
    "Image",
    "message",
    "Status",
    "NetworkSettings",
    "ApiVersion",
)
NOISE = (
    b"",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
    b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n",
)


def value(random: Random, depth: int = 0) -> Any:
    """JSON of any shape, with some of Docker's keys."""
    kind = random.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return random.choice((None, True, False))
    if kind == 1:
        return random.choice((-1, 0, 1.5e308, 1 << 70))
    if kind <= 3:
        return random.choice(("", "x", "\0", "\ud800", "²", "running", "exited"))
    if kind == 4:
        return [value(random, depth + 1) for _ in range(random.randrange(3))]
    return {key: value(random, depth + 1) for key in random.sample(KEYS, random.randrange(6))}


def reply(random: Random) -> Reply:
    """Any answer."""
    status = random.choice(STATUSES)
    match random.randrange(6):
        case 0:
            return Reply(status, value(random))
        case 1:
            return Reply(status, random.randbytes(random.randrange(200)))
        case 2:
            return Reply(status, b"<html>no</html>", {"Content-Type": "text/html"})
        case 3:
            return Reply(200, value(random), cut_after=random.randrange(20))
        case 4:
            return Reply(raw=random.choice((*NOISE, random.randbytes(300))))
    return Reply(status, {"message": random.choice(WORDS)}, delay_s=random.random() / 2)


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """See the package."""
    random = Random(seed)
    violations: list[str] = []
    with stack.running("odd-answers") as here, scripted_daemon.start(daemon.host()) as odd:
        log = here.state_root.logs / "manager.log"
        environment = here.environment | SETTINGS | {"RTMANAGER_DOCKER_HOST": odd.host}
        with manager.start(environment, log, echo=False) as process, here.redis.client() as redis:
            process.wait_until_ready()
            for _ in range(count):
                odd.forget()
                for _ in range(random.randrange(1, 4)):
                    odd.answer(random.choice(CALLS), reply(random), times=random.choice((1, 2, 5, 1000)))
                _add_job(redis, random, here.engine.ref)
                time.sleep(random.choice((0.02, 0.1, 0.4)))
            odd.forget()
            try:
                wait_until(
                    f"{count} results",
                    lambda: redis.xlen("runtime:job_results") >= count or None,
                    timeout_s=SETTLED_WITHIN_S,
                )
                wait_until("records and containers to agree", lambda: _agree(here) or None, timeout_s=SETTLED_WITHIN_S)
            except WaitFailed as failure:
                violations.append(str(failure)[:1000])
            answered = redis.xlen("runtime:job_results")
            if answered != count:
                violations.append(f"{answered} results for {count} jobs")
            if process.exit_code is not None:
                violations.append(f"the manager ended with {process.exit_code}")
            codes = sorted({fields["error_code"] for _, fields in redis.xrange("runtime:job_results")})
            report(f"{count} jobs, {len(odd.requests)} calls of Docker, codes {codes}")
        violations += log_violations(log.read_text())
    return violations


def _add_job(redis: Any, random: Random, good_ref: str) -> None:
    game_id, fields = f"g{random.randrange(GAMES)}", {"requested_at_ms": "1"}
    if random.random() < 0.6:
        image_ref = random.choice((good_ref, "nobody/has:1", "registry.invalid/x:1"))
        redis.xadd("runtime:start_jobs", {"game_id": game_id, "image_ref": image_ref, **fields})
    else:
        redis.xadd("runtime:stop_jobs", {"game_id": game_id, "reason": "finished", **fields})


def _agree(here: Stack) -> bool:
    """Whether the running records name exactly the containers that run."""
    found = daemon.client().containers(filters={"network": here.network.name})
    running = {each["Labels"]["com.galaxy.game_id"]: each["Id"] for each in found}
    with here.database.connect() as connection:
        rows = connection.execute("SELECT game_id, current_container_id, status FROM rtmanager.runtime_records")
        recorded = {game_id: container_id for game_id, container_id, status in rows if status == "running"}
    return recorded == running
