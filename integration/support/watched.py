"""Shared by tests of the watching workers: a running game, its events, its snapshot, and manual actions."""

import json
from typing import Any

from harness import web
from harness.fixtures.container import Container
from harness.rtm import RuntimeTestCase
from harness.rtm.case import RESULT_TIMEOUT_S

STREAM = "runtime:health_events"


class WatchedTestCase(RuntimeTestCase):
    """A test that reads what the manager publishes about a game."""

    def start_game(self, game_id: str | None = None) -> Container:
        """Start a game; return its container."""
        started = self.post("start", {"image_ref": self.engine.ref}, game_id=game_id)
        return Container(str(started["current_container_id"]), self.docker)

    def crash_engine(self, game_id: str | None = None) -> None:
        """Kill the engine's process from inside its container: Docker reports a death and no kill."""
        container = Container(str(self.record(game_id)["current_container_id"]), self.docker)
        # Not the first process, which is an init and ends with the engine's code.
        container.exec(["sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)"])

    def health_events(self, game_id: str | None = None) -> list[dict[str, Any]]:
        """The health events of a game after that of its first start, with their details decoded."""
        events = [each for each in self.entries(STREAM) if each["game_id"] == (game_id or self.game_id)]
        if events and events[0]["event_type"] == "container_started":
            events = events[1:]
        return [{**each, "details": json.loads(each["details"])} for each in events]

    def kinds(self, game_id: str | None = None) -> list[str]:
        """The types of these events."""
        return [each["event_type"] for each in self.health_events(game_id)]

    def wait_for(self, *kinds: str, timeout_s: float = RESULT_TIMEOUT_S) -> list[dict[str, Any]]:
        """Wait until exactly these events have been published; return them."""
        self.wait_until(
            f"the events {kinds}",
            lambda: self.kinds() == list(kinds),
            timeout_s,
            describe=lambda _: repr(self.health_events()),
        )
        return self.health_events()

    def snapshot(self) -> tuple[str, str]:
        """Status and source of the game's health snapshot."""
        [row] = self.rows("SELECT status, source FROM health_snapshots WHERE game_id = %s", self.game_id)
        return row["status"], row["source"]

    def health(self) -> dict[str, Any]:
        """The REST API's answer about the game's health."""
        return self.succeed(self.call("GET", "/health"))

    def status(self) -> str | None:
        """The status of the game's record."""
        found = self.record().get("status")
        return None if found is None else str(found)

    def wait_for_status(self, status: str) -> None:
        """Wait until the record has this status."""
        self.wait_until(f"the record to be {status}", lambda: self.status() == status)

    def log_kinds(self) -> list[tuple[str, str]]:
        """Kind and source of the game's log rows."""
        return [(row["op_kind"], row["op_source"]) for row in self.log_rows()]

    def run_by_hand(self, **changes: Any) -> Container:
        """Run a container as a user does with `docker run`, consistent with the record except for `changes`."""
        name = f"galaxy-game-{self.game_id}"
        labels = {
            "com.galaxy.owner": "rtmanager",
            "com.galaxy.kind": "game-engine",
            "com.galaxy.game_id": self.game_id,
        }
        how = {
            "name": name,
            "hostname": name,
            "network": self.network.name,
            "labels": labels,
            "env": {"GAME_STATE_PATH": "/tmp"},
            **changes,
        }
        return self.start_container(self.engine.ref, **how)

    def is_reported(self, container: Container, reason: str = "") -> bool:
        """Whether the manager's metrics list this container as a stray, for this reason."""
        ours = (line for line in self.metrics().splitlines() if container.container_id[:12] in line)
        return any(reason in line for line in ours)

    def metrics(self) -> str:
        """The manager's metrics as text."""
        return web.text(f"{self.base_url}/metrics")
