"""The bench of the REST interface's reads."""

from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.rest import games, reading


def bench() -> Bench:
    """The bench; its conditions are looked up now, and the images made if they are missing."""
    prepared_docker()
    return Bench(
        contests=reading.contests,
        leans_on=(LOOPBACK,),
        notes={
            "records": f"{games.GAMES:,} of games that are over, so that the manager has nothing else to do",
            "FastAPI": "one process, uvloop and httptools, psycopg's asynchronous pool with as many connections, "
            "autocommit, a response model; no access log",
            "clients": "a process of their own, beside the servers and PostgreSQL on the same cores",
        },
    )
