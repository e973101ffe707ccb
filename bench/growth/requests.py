"""Requests to a manager's process by REST and by the streams, and their durations."""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from statistics import median
from typing import Any

from bench.errors import BenchError
from bench.synthetic import games
from bench.synthetic.platform import Platform
from harness.errors import WaitFailed
from harness.waiting import wait_until

#: Reads of one record; jobs added at once.
READS, JOBS = 200, 500

#: The largest page that the API returns.
PAGE = 1000

#: Seconds to wait for the results.
RESULT_S = 30.0

_PATH = "/api/v1/internal/runtimes"


def read_s(address: str, ids: Sequence[str]) -> float:
    """Median seconds of a read of one record, on a kept connection."""
    taken = []
    with closing(http.client.HTTPConnection(address)) as connection:
        for number in range(READS):
            began = time.perf_counter()
            answer = _get(connection, f"{_PATH}/{ids[number * 7919 % len(ids)]}")
            taken.append(time.perf_counter() - began)
            if answer["status"] != "running":
                raise BenchError(f"a game that runs is told to be {answer['status']}")
    return median(taken)


def list_s(address: str, ids: Sequence[str]) -> float:
    """Seconds to list all records, page by page. Raises BenchError when records are missing."""
    with closing(http.client.HTTPConnection(address)) as connection:
        began = time.perf_counter()
        page = _get(connection, f"{_PATH}?limit={PAGE}")
        found = len(page["items"])
        while page["next_cursor"]:
            page = _get(connection, f"{_PATH}?limit={PAGE}&cursor={page['next_cursor']}")
            found += len(page["items"])
        took = time.perf_counter() - began
    if found != len(ids):
        raise BenchError(f"{found} records are listed, but there are {len(ids)}")
    return took


def replays_s(here: Platform, ids: Sequence[str]) -> float:
    """Seconds for `JOBS` start jobs of running games, from the first entry to the last result."""
    with here.redis.client() as redis:
        results = "runtime:job_results"
        before = redis.xlen(results)
        began = time.perf_counter()
        with redis.pipeline(transaction=False) as pipe:
            for number in range(JOBS):
                job: Mapping[Any, Any] = {
                    "game_id": ids[number * 7919 % len(ids)],
                    "image_ref": games.IMAGE,
                    "requested_at_ms": "0",
                }
                pipe.xadd("runtime:start_jobs", dict(job))
            pipe.execute()
        try:
            wait_until(
                f"{JOBS} results", lambda: redis.xlen(results) >= before + JOBS, timeout_s=RESULT_S, interval_s=0.005
            )
        except WaitFailed as failure:
            raise BenchError(str(failure)) from None
        took = time.perf_counter() - began
        entries: Any = redis.xrevrange(results, count=JOBS)
    if codes := {result["error_code"] for _, result in entries} - {"replay_no_op"}:
        raise BenchError(f"replays are answered with {', '.join(sorted(codes))}")
    return took


def _get(connection: http.client.HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise BenchError(f"GET {path} is answered {answer.status}: {body.decode(errors='replace')}")
    return json.loads(body)
