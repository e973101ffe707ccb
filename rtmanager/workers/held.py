"""Held entries: the store times out on them while it accepts others, so they stay pending and are retried alone.

A statement that times out or ends its session looks like a silent server. When one entry causes it, most likely by a
trigger for one game, the other games must not wait. Later entries of the same game wait, to keep their order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.jobs import Entry, Job
from rtmanager.domain.messages import Message

#: Equal timeouts of one batch after which its entries are tried one by one.
SILENCES = 3
#: Entries that may fail while a batch is tried one by one: each costs a statement's whole deadline.
MOST_FAILED = 3
#: Seconds before a held entry is retried, doubling from the first to the longest. The first is short, since a session
#: that ended by chance looks the same.
FIRST_RETRY_S = 1.0
MOST_RETRY_S = 30.0


@dataclass(slots=True)
class _Held:
    job: Job
    error: Unavailable
    pause_s: float
    retry_at: float


class HeldEntries:
    """The held entries of one instance, at most one of each game; used by one thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_game: dict[object, _Held] = {}
        #: Entries of the last read that were left pending.
        self.waiting = 0
        self._silence: object = None
        self._silences = 0

    def problem(self) -> str:
        """A text that names a held entry; empty when none is held."""
        for held in self._by_game.copy().values():
            return f"entry {_name(held.job)} is not taken over, though others are: {held.error}"
        return ""

    def silent(self, offered: Sequence[Job], error: Unavailable) -> bool:
        """Count a timeout of a batch; return whether to try its entries one by one."""
        silence = (offered[0].entry.position, str(error))
        self._silences = self._silences + 1 if silence == self._silence else 1
        self._silence = silence
        if self._silences < SILENCES:
            return False
        self._silence = None
        return True

    def hold(self, job: Job, error: Unavailable) -> bool:
        """Hold an entry and double its pause; return whether it is held for the first time."""
        before = self._by_game.get(_game(job))
        pause_s = min(2 * before.pause_s, MOST_RETRY_S) if before else FIRST_RETRY_S
        self._by_game[_game(job)] = _Held(job, error, pause_s, self._clock() + pause_s)
        return before is None

    def let_go(self, job: Job) -> None:
        """Drop a held entry: it is accepted."""
        self._by_game.pop(_game(job), None)

    def others(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs of a read whose games have no held entry. A held entry missing from the read is dropped."""
        read = {job.entry.position for job in jobs}
        self._by_game = {game: held for game, held in self._by_game.items() if held.job.entry.position in read}
        others = [job for job in jobs if _game(job) not in self._by_game]
        self.waiting = len(jobs) - len(others)
        return others

    def due(self) -> Job | None:
        """A held entry that is due for a retry."""
        now = self._clock()
        return next((held.job for held in self._by_game.values() if held.retry_at <= now), None)

    def due_in_s(self) -> float:
        """Seconds until the next retry; infinite when no entry is held."""
        return max(0.0, min((held.retry_at for held in self._by_game.values()), default=math.inf) - self._clock())


def by_game(jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs of each game in order; the games are shuffled, so that no game always comes first."""
    games: dict[object, list[Job]] = {}
    for job in jobs:
        games.setdefault(_game(job), []).append(job)
    lists = list(games.values())
    random.shuffle(lists)
    return lists


def _game(job: Job) -> object:
    """The key within which jobs keep their order: the game; a dead letter has a key of its own."""
    return job.entry.position if isinstance(job.becomes, Message) else job.becomes.game_id


def _name(job: Job) -> str:
    entry: Entry = job.entry
    about = "" if isinstance(job.becomes, Message) else f" of game {job.becomes.game_id}"
    return f"{entry.entry_id} of {entry.stream}{about}"
