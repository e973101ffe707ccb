"""Entries that the store does not answer about while it takes others: left pending, and tried alone now and then.

A statement that times out or ends its session looks like a server that is silent. Where it is about one entry, a
trigger for one game most likely, the others must not wait. The later entries of its game do: they keep their order.
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

#: Equal silences about one batch after which its entries are tried one by one.
SILENCES = 3
#: Entries that may fail while a batch is tried one by one: each takes a statement's whole time.
MOST_FAILED = 3
#: How long to wait before a held entry is tried again: at first, since a session that ended by chance looks the same;
#: and at most, with twice the pause after each silence.
FIRST_RETRY_S = 1.0
MOST_RETRY_S = 30.0


@dataclass(slots=True)
class _Held:
    job: Job
    error: Unavailable
    pause_s: float
    retry_at: float


class HeldEntries:
    """The held entries of one instance, the first of each game; used by one thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_game: dict[object, _Held] = {}
        #: Entries of the last read that were left pending.
        self.waiting = 0
        self._silence: object = None
        self._silences = 0

    def problem(self) -> str:
        """Which entry waits, for a person; empty when none does."""
        for held in self._by_game.copy().values():
            return f"entry {_name(held.job)} is not taken over, though others are: {held.error}"
        return ""

    def silent(self, offered: Sequence[Job], error: Unavailable) -> bool:
        """Count a silence about a batch; whether its entries are to be tried one by one."""
        silence = (offered[0].entry.position, str(error))
        self._silences = self._silences + 1 if silence == self._silence else 1
        self._silence = silence
        if self._silences < SILENCES:
            return False
        self._silence = None
        return True

    def hold(self, job: Job, error: Unavailable) -> bool:
        """Leave an entry for a while; whether it is held for the first time."""
        before = self._by_game.get(_game(job))
        pause_s = min(2 * before.pause_s, MOST_RETRY_S) if before else FIRST_RETRY_S
        self._by_game[_game(job)] = _Held(job, error, pause_s, self._clock() + pause_s)
        return before is None

    def let_go(self, job: Job) -> None:
        """The entry is taken over."""
        self._by_game.pop(_game(job), None)

    def others(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs of a read whose games have no held entry. A held entry that was not read any more is forgotten."""
        read = {job.entry.position for job in jobs}
        self._by_game = {game: held for game, held in self._by_game.items() if held.job.entry.position in read}
        others = [job for job in jobs if _game(job) not in self._by_game]
        self.waiting = len(jobs) - len(others)
        return others

    def due(self) -> Job | None:
        """An entry that is to be tried again now."""
        now = self._clock()
        return next((held.job for held in self._by_game.values() if held.retry_at <= now), None)

    def due_in_s(self) -> float:
        """Seconds until an entry is to be tried again; infinite when none is held."""
        return max(0.0, min((held.retry_at for held in self._by_game.values()), default=math.inf) - self._clock())


def by_game(jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs of each game in their order; the games in any, so that no few of them always come first."""
    games: dict[object, list[Job]] = {}
    for job in jobs:
        games.setdefault(_game(job), []).append(job)
    lists = list(games.values())
    random.shuffle(lists)
    return lists


def _game(job: Job) -> object:
    """What keeps its order: a game; a dead letter is alone."""
    return job.entry.position if isinstance(job.becomes, Message) else job.becomes.game_id


def _name(job: Job) -> str:
    entry: Entry = job.entry
    about = "" if isinstance(job.becomes, Message) else f" of game {job.becomes.game_id}"
    return f"{entry.entry_id} of {entry.stream}{about}"
