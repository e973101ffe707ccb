"""`make run`: a Runtime Manager with everything it needs, in the foreground, for manual use."""

import sys
import time

from harness.errors import HarnessError
from harness.fixtures import postgres, redis
from harness.fixtures.postgres import Postgres
from harness.fixtures.redis import Redis
from harness.images.catalogue import ensure
from harness.machine.up import up
from harness.progress import enable
from harness.rtm import manager, stack
from harness.rtm.images import NEEDED
from harness.rtm.manager import ADDRESS_VARIABLE
from harness.rtm.stack import Stack

_HELP = """
The Runtime Manager serves at http://{address}. Paste these lines into another terminal:

  export RTM=http://{address}/api/v1/internal/runtimes REDIS={redis_address}
  redis_cli() {{ {redis_cli} "$@"; }}
  sql() {{ {psql} "$@"; }}

Things to try there:

  a start job
    redis_cli XADD runtime:start_jobs '*' game_id first image_ref {image} requested_at_ms {now}
  its result
    redis_cli XREVRANGE runtime:job_results + - COUNT 1
  its record
    curl -s $RTM/first
    sql -x -c 'SELECT * FROM rtmanager.runtime_records'
  its log of operations
    sql -c 'SELECT op_kind, op_source, outcome, error_code, finished_at FROM rtmanager.operation_log ORDER BY id'
  its container
    docker ps --filter label=com.galaxy.owner=rtmanager
  a patch
    curl -s -H 'X-Galaxy-Caller: gm' -H 'Content-Type: application/json' -d '{{"image_ref":"{patched}"}}' \\
      $RTM/first/patch
  a stop job, then its container's removal, which answers 409 until the game has stopped
    redis_cli XADD runtime:stop_jobs '*' game_id first reason finished requested_at_ms {now}
    curl -sf --retry 30 --retry-delay 1 --retry-all-errors -X DELETE $RTM/first/container

The games' directories are under {state_root}.
Ctrl-C stops the manager and takes all of this down, the games included.
"""


def run() -> None:
    """Serve until Ctrl-C or SIGTERM; raises HarnessError when the manager does not start or its exit code is not 0."""
    enable()
    up()
    ensure(NEEDED)
    with stack.running("run") as here:
        log_format = {"RTMANAGER_LOG_FORMAT": "text"} if sys.stderr.isatty() else {}
        process = manager.start(here.environment | log_format, here.state_root.logs / "manager.log", echo=True)
        try:
            process.wait_until_ready()
            print(_instructions(here), flush=True)
            try:
                process.wait()
            except KeyboardInterrupt:
                print("\nstopping, the manager first", flush=True)
        finally:
            # Ctrl-C may have reached only this process; a manager that has ended keeps its exit code.
            code = process.terminate()
    if code != 0:
        raise HarnessError(f"the manager ended with exit code {code}; its log is above")


def _instructions(here: Stack) -> str:
    return _HELP.format(
        address=here.environment[ADDRESS_VARIABLE],
        redis_address=here.redis.address,
        redis_cli=f"docker exec {here.redis.container.name} redis-cli -p {_port_inside(here.redis)}",
        psql=f"docker exec {here.postgres.container.name} psql -h 127.0.0.1 -p {_port_inside(here.postgres)} "
        f"-U postgres {here.database.name}",
        image=here.engine.ref,
        patched=here.engine.patched_ref,
        now=round(time.time() * 1000),
        state_root=here.state_root.folder("games"),
    )


def _port_inside(server: Postgres | Redis) -> int:
    """The server's port from inside its own container."""
    shares_host = server.container.inspect()["HostConfig"]["NetworkMode"] == "host"
    return server.port if shares_host else {"Postgres": postgres.PORT, "Redis": redis.PORT}[type(server).__name__]
