"""`make run`: a Runtime Manager with everything it needs, in the foreground, to try things by hand."""

import subprocess
import time

from harness import images, manager, postgres, redis, stack
from harness.container import HTTP_NOT_YET
from harness.errors import HarnessError
from harness.machine.up import up
from harness.manager import ADDRESS_VARIABLE, COMMAND
from harness.postgres import Postgres
from harness.progress import enable
from harness.redis import Redis
from harness.stack import Stack
from harness.waiting import wait_until
from harness.web import call

_HELP = """
The Runtime Manager serves at http://{address}. Things to try from another terminal:

  a start job
    {redis_cli} XADD runtime:start_jobs '*' \\
      game_id first image_ref {image} requested_at_ms {now}
  its result
    {redis_cli} XREVRANGE runtime:job_results + - COUNT 1
  its record
    curl -s http://{address}/api/v1/internal/runtimes/first
    {psql} -x -c 'SELECT * FROM rtmanager.runtime_records'
  its log of operations
    {psql} -c \\
      'SELECT op_kind, op_source, outcome, error_code, finished_at FROM rtmanager.operation_log ORDER BY id'
  its container
    docker ps --filter label=com.galaxy.owner=rtmanager
  a patch
    curl -s -X POST -H 'X-Galaxy-Caller: gm' -d '{{"image_ref":"{patched}"}}' \\
      http://{address}/api/v1/internal/runtimes/first/patch
  a stop job, then its container's removal
    {redis_cli} XADD runtime:stop_jobs '*' game_id first reason finished requested_at_ms {now}
    curl -s -X DELETE http://{address}/api/v1/internal/runtimes/first/container

The games' directories are under {state_root}.
Ctrl-C stops the manager and takes all of this down, the games included.
"""


def run() -> None:
    """Serve until Ctrl-C or SIGTERM; raises HarnessError when the manager does not come up or ends badly."""
    enable()
    up()
    images.ensure_all()
    with stack.running("run") as here:
        # Not through `manager.start`: its log belongs on this terminal, and Ctrl-C reaches it by itself.
        process = subprocess.Popen(COMMAND, env=manager.whole_environment(here.environment))
        try:
            _wait_until_ready(process, here.environment[ADDRESS_VARIABLE])
            print(_instructions(here), flush=True)
            process.wait()
        except KeyboardInterrupt:
            print("\nstopping, the manager first", flush=True)
        finally:
            code = _end(process)
    if code != 0:
        raise HarnessError(f"the manager ended with exit code {code}; its log is above")


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    def hopeless() -> str | None:
        code = process.poll()
        return None if code is None else f"it ended with exit code {code}; its log is above"

    wait_until(
        f"the manager at {address}",
        lambda: call("GET", f"http://{address}/readyz", timeout_s=5)[0] == 200,
        timeout_s=manager.READY_TIMEOUT_S,
        retry_on=HTTP_NOT_YET,
        hopeless=hopeless,
    )


def _end(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code; a manager that still runs (Ctrl-C may have reached only us) is asked to end."""
    if process.poll() is None:
        process.terminate()
    return process.wait(manager.STOP_TIMEOUT_S)


def _instructions(here: Stack) -> str:
    return _HELP.format(
        address=here.environment[ADDRESS_VARIABLE],
        redis_cli=f"docker exec {here.redis.container.name} redis-cli -p {_port_inside(here.redis)}",
        psql=f"docker exec {here.postgres.container.name} psql -h 127.0.0.1 -p {_port_inside(here.postgres)} "
        "-U postgres galaxy",
        image=here.engine.ref,
        patched=here.engine.patched_ref,
        now=round(time.time() * 1000),
        state_root=here.state_root.games,
    )


def _port_inside(server: Postgres | Redis) -> int:
    """The port at which a client inside the server's own container finds it."""
    shares_host = server.container.inspect()["HostConfig"]["NetworkMode"] == "host"
    return server.port if shares_host else {"Postgres": postgres.PORT, "Redis": redis.PORT}[type(server).__name__]
