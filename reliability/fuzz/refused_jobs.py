"""Start jobs that the daemon rejects, all at once: each is answered, and a valid start among them is not delayed.

The real daemon rejects half of the references: a digest that no image has, a registry that does not exist, a name that
only Docker calls malformed. Scripted answers of every kind reject the others. The valid start is timed alone first, and
compared in a full run only: on a busy machine a short run gives no meaningful times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Any

from harness import daemon
from harness.fixtures import scripted_daemon
from harness.fixtures.scripted_daemon import Reply
from harness.rtm import manager, stack
from harness.waiting import wait_until
from reliability.fuzz import log_violations

DEFAULT_COUNT = 1000

#: Seconds by which the valid start may take longer than alone.
LONGER_S = 1.0
#: Seconds until the last answer; generous, and includes temporary errors.
ANSWERED_WITHIN_S = 120.0
#: Temporary errors become results after this time.
DEFERRAL_LIMIT = "3s"

#: Replies to a request for an image, by the prefix of the references that get them, and the resulting code.
SCRIPTED: dict[str, tuple[Reply, str]] = {
    "malformed": (Reply(400, {"message": "invalid reference format"}), "start_config_invalid"),
    "malformed500": (Reply(500, {"message": "invalid reference format: must be lowercase"}), "start_config_invalid"),
    "refused": (Reply(403, {"message": "denied by the authorization plugin"}), "image_pull_failed"),
    "broken": (Reply(500, {"message": "layer does not exist"}), "image_pull_failed"),
    "long": (Reply(500, {"message": "x" * 300_000}), "image_pull_failed"),
    "nul": (Reply(500, {"message": "a\0b\ud800"}), "image_pull_failed"),
    "page": (Reply(200, b"<html>"), "image_pull_failed"),
    "proxy": (Reply(407, b"<html>log in</html>"), "image_pull_failed"),
    "odd": (Reply(200, [[]]), "image_pull_failed"),
    "cut": (Reply(200, b'{"Id": ', headers={"Content-Length": "7"}), "image_pull_failed"),
    "redirect": (Reply(302, b"", {"Location": "/elsewhere"}), "image_pull_failed"),
    "later": (Reply(503, {"message": "not now"}), "image_pull_failed"),
    "noise": (Reply(raw=b"SSH-2.0-OpenSSH\r\n"), "image_pull_failed"),
}


def reference(random: Random, number: int) -> tuple[str, str]:
    """A well-formed reference and the error code of its start."""
    kind = random.choice([*SCRIPTED, "digest", "registry"])
    if kind == "digest":
        return f"registry.invalid/galaxy/game@sha256:{random.getrandbits(256):064x}", "image_pull_failed"
    if kind == "registry":
        return f"registry.invalid/galaxy/game:{number}", "image_pull_failed"
    return f"{kind}/game:{number}", SCRIPTED[kind][1]


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """See the package."""
    random = Random(seed)
    logging.getLogger("harness").setLevel(logging.WARNING)
    violations: list[str] = []
    with stack.running("refused-jobs") as here, scripted_daemon.start(daemon.host()) as odd:
        for kind, (reply, _) in SCRIPTED.items():
            odd.answer(f"GET /images/{kind}/game:*/json", reply)
        environment = here.environment | {
            "RTMANAGER_DOCKER_HOST": odd.host,
            "RTMANAGER_DEFERRAL_LIMIT": DEFERRAL_LIMIT,
        }
        log = here.state_root.logs / "manager.log"
        with manager.start(environment, log, echo=False) as process, here.redis.client() as redis:
            process.wait_until_ready()
            results = _Results(redis)
            _start(redis, results, here.engine.ref, "warm-up")
            alone_s = _start(redis, results, here.engine.ref, "alone")
            began = monotonic()
            expected = _add_all(redis, random, count, here.engine.ref)
            among_s = results.success("mmm-good", 60.0) - began
            failures = results.failures(len(expected), ANSWERED_WITHIN_S)
            report(
                f"a good start: alone {alone_s:.2f} s, among {count} refused ones {among_s:.2f} s; "
                f"all answered after {monotonic() - began:.1f} s"
            )
            violations += _judge(failures, expected)
            if count >= DEFAULT_COUNT and among_s > alone_s + LONGER_S:
                violations.append(f"a good start took {among_s:.2f} s among others, {alone_s:.2f} s alone")
            if process.exit_code is not None:
                violations.append(f"the manager ended with {process.exit_code}")
        violations += log_violations(log.read_text())
    return violations


def _add_all(redis: Any, random: Random, count: int, good_ref: str) -> dict[str, str]:
    """Add all jobs at once, the valid one in the middle; return the expected code by game."""
    expected = {}
    with redis.pipeline(transaction=False) as pipe:
        for number in range(count):
            game_id = f"{random.choice('abcxyz')}-{number}"
            image_ref, expected[game_id] = reference(random, number)
            pipe.xadd("runtime:start_jobs", _job(game_id, image_ref))
            if number == count // 2:
                pipe.xadd("runtime:start_jobs", _job("mmm-good", good_ref))
        pipe.execute()
    return expected


def _job(game_id: str, image_ref: str) -> dict[str, str]:
    return {"game_id": game_id, "image_ref": image_ref, "requested_at_ms": "1"}


def _start(redis: Any, results: _Results, image_ref: str, game_id: str) -> float:
    """Seconds from the job to its result."""
    began = monotonic()
    redis.xadd("runtime:start_jobs", _job(game_id, image_ref))
    return results.success(game_id, 30.0) - began


class _Results:
    """The job results; each is read once, so that the reading takes no time from the services."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._after = "-"
        self._seen: list[dict[str, str]] = []

    def success(self, game_id: str, limit_s: float) -> float:
        """Return the time at which a game's result arrived. Raises AssertionError when it is a failure."""
        result = wait_until(
            f"the result of {game_id}",
            lambda: next((each for each in self._all() if each["game_id"] == game_id), None),
            timeout_s=limit_s,
        )
        if result["outcome"] != "success":
            raise AssertionError(f"a good start failed: {result}")
        return monotonic()

    def failures(self, count: int, limit_s: float) -> list[dict[str, str]]:
        """Wait for so many failures; return all that are there."""

        def all_there() -> list[dict[str, str]] | None:
            failed = [each for each in self._all() if each["outcome"] == "failure"]
            return failed if len(failed) >= count else None

        return wait_until(f"{count} results", all_there, timeout_s=limit_s)

    def _all(self) -> list[dict[str, str]]:
        for entry_id, fields in self._redis.xrange("runtime:job_results", min=self._after):
            self._after = f"({entry_id}"
            self._seen.append(fields)
        return self._seen


def _judge(results: list[dict[str, str]], expected: dict[str, str]) -> list[str]:
    violations = []
    if len(results) != len(expected):
        violations.append(f"{len(results)} results for {len(expected)} jobs")
    for result in results:
        code = expected.get(result["game_id"])
        if result["error_code"] != code:
            message = result["error_message"][:300]
            violations.append(f"{result['game_id']}: {result['error_code']} in place of {code}: {message}")
        if len(result["error_message"]) > 5000:
            violations.append(f"{result['game_id']}: a message of {len(result['error_message'])} characters")
    return violations[:20]
