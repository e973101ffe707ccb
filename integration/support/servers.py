"""PostgreSQL servers of other kinds than the harness starts: a hot standby, and one whose disk is small.

Both run on the image of the harness, on a data directory of their own, and share this machine's network as the
harness's own servers do where the daemon allows it; where it does not, the tests that need them are skipped.
"""

import unittest
from collections.abc import Mapping

from harness import Postgres, faults, images, start_container
from harness.fixtures import listening
from harness.fixtures.listening import LOOPBACK

#: Where PostgreSQL's own programs are, as a shell finds them.
PROGRAMS = '"$(dirname "$(readlink -f /opt/rtm-postgres/postgres)")"'

#: The directory of the small disk. The image's data, which is copied there, takes some 40 MB.
SMALL = "/small"
SMALL_DISK = {SMALL: "size=64m,mode=1777"}


def hot_standby(line: faults.TcpProxy) -> Postgres:
    """A standby of the server behind `line`; it has what that one has now, and follows."""
    copy = f"{PROGRAMS}/pg_basebackup -h {line.host} -p {line.port} -U postgres -D /tmp/standby -R -c fast --no-sync"
    return _start(copy, "/tmp/standby", {})


def on_small_disk() -> Postgres:
    """A server whose data is on a disk of its own, with little room left."""
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
