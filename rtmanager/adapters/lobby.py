"""Requests each started game from the Game Lobby's internal API, for the log only.

The answer decides nothing, since the job has all that a start needs. So a thread of its own sends the requests, and
requests are dropped while the Lobby is slow.
"""

from __future__ import annotations

import http.client
import logging
import queue
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from rtmanager.threads import Thread

#: Requests that may wait behind one in progress; further ones are dropped.
WAITING = 16


class LobbyDiagnostics:
    """Sends `GET /api/v1/internal/games/{game_id}` and logs the status."""

    def __init__(self, base_url: str, timeout_s: float, logger: logging.Logger) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._logger = logger
        self._questions: queue.Queue[str | None] = queue.Queue(WAITING)
        # No proxy from the environment: the Lobby is in the same network.
        self._opener: OpenerDirector = build_opener(ProxyHandler({}))
        self._thread = Thread(self._run, "rtm-lobby", lasting=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def query(self, game_id: str) -> None:
        """Queue a request about a game; returns at once."""
        try:
            self._questions.put_nowait(game_id)
        except queue.Full:
            self._logger.debug("lobby is slow, question dropped", extra={"asked_about": game_id})

    def close(self) -> None:
        """Drop queued requests; waits at most `timeout_s` for one in progress."""
        try:
            while True:
                self._questions.get_nowait()
        except queue.Empty:
            self._questions.put(None)
        self._thread.join(self._timeout_s)

    def _run(self) -> None:
        while (game_id := self._questions.get()) is not None:
            status = self._status_of(game_id)
            self._logger.debug("lobby answered", extra={"asked_about": game_id, "lobby": status})

    def _status_of(self, game_id: str) -> str:
        try:
            url = f"{self._base_url}/api/v1/internal/games/{quote(game_id, safe='')}"
            with self._opener.open(Request(url), timeout=self._timeout_s) as response:
                return str(response.status)
        except HTTPError as error:
            error.close()
            return str(error.code)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"no answer: {error}"
