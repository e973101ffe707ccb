"""More kinds of PostgreSQL servers: a hot standby, and one on a small disk.

Both use the image of the harness and their own data directory. They share this machine's network, as the harness's
servers do, where the daemon allows it; elsewhere their tests are skipped.
"""

import unittest
from collections.abc import Mapping

from harness import Postgres, faults, images, start_container
from harness.fixtures import listening
from harness.fixtures.listening import LOOPBACK

#: The directory of PostgreSQL's own programs, as a shell expression.
PROGRAMS = '"$(dirname "$(readlink -f /opt/rtm-postgres/postgres)")"'

#: The directory of the small disk. The copy of the image's data takes some 40 MB.
SMALL = "/small"
SMALL_DISK = {SMALL: "size=64m,mode=1777"}


def hot_standby(line: faults.TcpProxy) -> Postgres:
    """Start a standby of the server behind `line`; it has the current data, and follows."""
    copy = f"{PROGRAMS}/pg_basebackup -h {line.host} -p {line.port} -U postgres -D /tmp/standby -R -c fast --no-sync"
    return _start(copy, "/tmp/standby", {})


def on_small_disk() -> Postgres:
    """Start a server with its data on a separate, almost full disk."""
    return _start(f"cp -a $PGDATA {SMALL}/data", f"{SMALL}/data", SMALL_DISK)


def _start(prepare: str, data: str, tmpfs: Mapping[str, str]) -> Postgres:
    import psycopg

    if not listening.shares_our_network():
        raise unittest.SkipTest("the daemon's host network is not this process's")
    port = listening.free_port()
    settings = {"listen_addresses": LOOPBACK, "port": port, "unix_socket_directories": ""}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    script = f"{prepare} && exec /opt/rtm-postgres/postgres -D {data} {options}"
    running = start_container(images.postgres(), entrypoint=["sh", "-c", script], network="host", tmpfs=tmpfs)
    server = Postgres(running, LOOPBACK, port)

    def answers() -> bool:
        with server.maintain() as connection:
            return connection.execute("SELECT 1").fetchone() is not None

    try:
        running.wait_until("PostgreSQL", answers, retry_on=(psycopg.OperationalError,))
    except BaseException:
        server.close()
        raise
    return server
