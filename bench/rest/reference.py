"""The same reads by FastAPI on uvicorn, in a process of its own, written as an expert would.

    python -m bench.rest.reference CONNINFO

One event loop (uvloop, httptools), a pool as large as the manager's, prepared statements without a transaction, and a
response model: without one FastAPI takes three times as long to encode a list.
"""

import os
import socket
import sys
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Query
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

from bench import child

#: The manager's default.
CONNECTIONS = 16

_COLUMNS = """
    game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
    started_at, stopped_at, removed_at, last_op_at, created_at
"""
_ONE = f"SELECT {_COLUMNS} FROM runtime_records WHERE game_id = %(game_id)s".encode()
_PAGE = f"""
    SELECT {_COLUMNS} FROM runtime_records
    WHERE game_id > %(after)s AND (%(status)s::text IS NULL OR status = %(status)s)
    ORDER BY game_id
    LIMIT %(limit)s
""".encode()

Status = Literal["running", "stopped", "removed"]


class Record(BaseModel):  # type: ignore[misc]
    """A record of the response."""

    game_id: str
    status: Status
    current_container_id: str | None
    current_image_ref: str | None
    engine_endpoint: str
    state_path: str
    docker_network: str
    started_at: datetime | None
    stopped_at: datetime | None
    removed_at: datetime | None
    last_op_at: datetime
    created_at: datetime


class Page(BaseModel):  # type: ignore[misc]
    """Records, and the cursor of the next page."""

    items: list[Record]
    next_cursor: str | None


def application(conninfo: str) -> FastAPI:
    """The application on that database."""
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        conninfo,
        kwargs={"row_factory": dict_row, "autocommit": True},
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        open=False,
    )

    @asynccontextmanager
    async def connected(_: FastAPI) -> AsyncIterator[None]:
        async with pool:
            await pool.wait()
            yield

    app = FastAPI(lifespan=connected)

    async def rows(statement: bytes, values: Mapping[str, Any]) -> list[DictRow]:
        async with pool.connection() as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall()

    @app.get("/api/v1/internal/runtimes/{game_id}")  # type: ignore[untyped-decorator]
    async def runtime(game_id: str) -> Record:
        found = await rows(_ONE, {"game_id": game_id})
        if not found:
            raise HTTPException(404, f"game {game_id} has no record")
        return found[0]  # type: ignore[return-value]  # FastAPI makes it one

    @app.get("/api/v1/internal/runtimes")  # type: ignore[untyped-decorator]
    async def runtimes(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: str = "", status: Status | None = None
    ) -> Page:
        found = await rows(_PAGE, {"after": _decoded(cursor), "status": status, "limit": limit + 1})
        page = found[:limit]
        next_cursor = _encoded(page[-1]["game_id"]) if len(found) > limit else None
        return {"items": page, "next_cursor": next_cursor}  # type: ignore[return-value]  # as above

    return app


def _encoded(game_id: str) -> str:
    return urlsafe_b64encode(game_id.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()


def _serve(conninfo: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    config = uvicorn.Config(
        application(conninfo), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)

    def until_the_end() -> None:
        child.ready(f"{listener.getsockname()[1]} {os.getpid()}")
        server.should_exit = True

    threading.Thread(target=until_the_end, name="bench-end", daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    _serve(sys.argv[1])
