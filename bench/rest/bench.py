"""The bench of the REST interface's reads."""

from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.rest import games, reading


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    prepared_docker()
    return Bench(
        contests=reading.contests,
        notes={
            "records": f"{games.GAMES:,} of games that are over, so that the manager has nothing else to do",
            "FastAPI": "one process, uvloop and httptools, psycopg's asynchronous pool with as many connections, "
            "autocommit, a response model; no access log",
            "clients": "a process of their own, beside the servers and PostgreSQL on the same cores",
        },
    )
