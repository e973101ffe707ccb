"""Watches Docker all the time: no game ever has two engines, not even for a moment.

It has two sources. A list, several times a second, shows the live containers at one moment. Docker's events show
shorter moments: an engine that started before the reported end of another. The end of a daemon ends both, and they
begin anew at its return.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from reliability.chaos.platform import Platform
from reliability.invariants.snapshot import GAME_LABEL, is_alive, short

#: Seconds between two lists, and before a retry while the daemon is down.
POLL_S, AGAIN_S = 0.25, 0.5

#: An end is reported a little after it occurred; a program that waits for it may be faster.
TOLERANCE_NS = 200_000_000

_ALIVE = ("running", "paused", "restarting")


class Lives:
    """The live engines of each game, from the events in their order."""

    def __init__(self) -> None:
        self._since: defaultdict[str, dict[str, int]] = defaultdict(dict)
        #: Engines that started while another of their game lived, with the time.
        self._suspects: list[tuple[str, str, str, int]] = []

    def forget(self) -> None:
        """Reset: events may be missing."""
        self._since.clear()
        self._suspects.clear()

    def started(self, game_id: str, container_id: str, at: int) -> None:
        """Record the start of an engine."""
        for other in self._since[game_id]:
            if other != container_id:
                self._suspects.append((game_id, other, container_id, at))
        self._since[game_id][container_id] = at

    def ended(self, game_id: str, container_id: str, at: int) -> Iterable[str]:
        """Record the end of an engine; return violations of those that started before it."""
        self._since[game_id].pop(container_id, None)
        kept = []
        for suspect in self._suspects:
            game, old, new, began = suspect
            if old != container_id:
                kept.append(suspect)
            elif at - began > TOLERANCE_NS:
                both = f"{short(new)} started {(at - began) / 1e9:.2f} s before the end of {short(old)}"
                yield f"I2: game {game} had two engines: {both}"
        self._suspects = kept


class Watcher:
    """Watches until `stop`; `violations` are the findings, `lists` and `events` count the observations."""

    def __init__(self, platform: Platform) -> None:
        self.violations: list[str] = []
        self.lists = self.events = 0
        self._platform = platform
        self._games = {*platform.games, *platform.canaries, platform.stubborn, platform.taken}
        self._ending = threading.Event()
        self._stream: Any = None
        self._threads = [
            threading.Thread(target=self._poll, name="watcher, lists", daemon=True),
            threading.Thread(target=self._listen, name="watcher, events", daemon=True),
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Stop watching."""
        self._ending.set()
        self._hang_up()
        for each in self._threads:
            each.join(timeout=5)

    def _poll(self) -> None:
        while not self._ending.wait(POLL_S):
            try:
                self._poll_once()
                self.lists += 1
            except OSError:  # the daemon is down; the SDK's errors are OSErrors
                self._ending.wait(AGAIN_S)

    def _poll_once(self) -> None:
        by_game = defaultdict(list)
        for each in self._platform.ours():
            if each["State"] in _ALIVE:
                by_game[each["Labels"][GAME_LABEL]].append(each["Id"])
        for game_id, several in by_game.items():
            if len(several) > 1:
                self._inspect_each(game_id, several)

    def _inspect_each(self, game_id: str, container_ids: list[str]) -> None:
        """Inspect the containers of a game: in a list they may be of different moments."""
        from docker.errors import NotFound

        alive = []
        for container_id in container_ids:
            try:
                if is_alive(self._platform.docker.inspect_container(container_id)):
                    alive.append(short(container_id))
            except NotFound:
                continue
        if len(alive) > 1:
            self.violations.append(f"I2: game {game_id} lived in {' and '.join(alive)} at the same time")

    def _listen(self) -> None:
        lives = Lives()
        filters = {"type": "container", "event": ["start", "die"], "label": "com.galaxy.kind=game-engine"}
        while not self._ending.is_set():
            lives.forget()
            try:
                self._stream = self._platform.docker.events(decode=True, filters=filters)
                for event in self._stream:
                    self._record_event(lives, event)
            except (OSError, ValueError):  # the daemon ended, perhaps within a line
                self._platform.history.note("watcher", "events broke off")
            self._hang_up()
            self._ending.wait(AGAIN_S)

    def _hang_up(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # the other side was faster
                self._stream.close()

    def _record_event(self, lives: Lives, event: dict[str, Any]) -> None:
        game_id = event["Actor"]["Attributes"].get(GAME_LABEL)
        container_id, at = event["Actor"]["ID"], event["timeNano"]
        if game_id not in self._games or container_id in self._platform.bystanders:
            return
        self.events += 1
        if event["Action"] == "start":
            lives.started(game_id, container_id, at)
        else:
            self.violations.extend(lives.ended(game_id, container_id, at))
