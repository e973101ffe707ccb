"""A contest: several ways of doing one thing, each run once a round, one right after the other.

What one run of one side takes means little on a machine that also does other things. So sides are compared
within a round only, and the order changes from round to round, so that none always runs first. The first round
is not counted: in it libraries are imported and files read from the disk.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

#: Enough for a median that stays, and for a p95 that is more than the slowest run.
ROUNDS = 20

#: The name of the only phase of a side that has no parts.
WHOLE = "the whole"

#: Seconds by phase: what one run of one side took.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Side:
    """One way of doing it; `run` does it once and says how many seconds each phase took."""

    name: str
    run: Callable[[], Sample]


def timed(work: Callable[[], object]) -> Callable[[], Sample]:
    """The `run` of a side that is one call."""

    def run() -> Sample:
        began = time.perf_counter()
        work()
        return {WHOLE: time.perf_counter() - began}

    return run


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Goal:
    """What one phase is to reach against the first reference; None: nothing is asked of that."""

    #: Ours divided by theirs, at most: of the medians of the rounds, and of what 19 rounds in 20 stay below.
    median: float | None = None
    p95: float | None = None
    #: Of the contest's `amount`, how much a second at least.
    per_second: float | None = None


@dataclass(frozen=True)
class Contest:
    """Ours against its references. `before` is called before each run of each side, and is not timed."""

    title: str
    ours: Side
    references: Sequence[Side]
    before: Callable[[], object] = field(default=_nothing)
    #: How many rounds, unless somebody asks for another number.
    rounds: int = ROUNDS
    #: By phase.
    goals: Mapping[str, Goal] = field(default_factory=dict)
    #: How much a run does: jobs, requests. None where a run is one thing.
    amount: int | None = None
    #: The phases in which that is done, where there are others.
    amount_of: Collection[str] | None = None
    #: Whether a round that is not counted goes before: not where a run is long, and nothing in it is done first.
    warm_up: bool = True

    def rounds_of(self, asked: int | None) -> int:
        """How many rounds are held when so many are asked for, or none in particular."""
        return self.rounds if asked is None else asked

    @property
    def sides(self) -> list[Side]:
        """All of them, ours first."""
        return [self.ours, *self.references]


#: What each side took in each round, by the side's name.
Samples = Mapping[str, Sequence[Sample]]


def hold(contest: Contest, rounds: int | None) -> Samples:
    """Run every side `rounds` times, or as often as the contest says, after one round that is not counted."""
    taken: dict[str, list[Sample]] = {side.name: [] for side in contest.sides}
    for number in range(0 if contest.warm_up else 1, contest.rounds_of(rounds) + 1):
        for side in rotated(contest.sides, number):
            contest.before()
            sample = side.run()
            if number > 0:
                taken[side.name].append(sample)
    return taken


def rotated(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """The order of round `number`: each side is first, second, … equally often."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]
