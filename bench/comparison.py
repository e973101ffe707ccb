"""A comparison: several implementations of the same work, each run once a round, one right after the other.

The time of a single run means little on a machine that also does other work. Sides are therefore compared within a
round only. The order rotates from round to round, so that no side always runs first. The first round does not count:
it imports libraries and reads files from disk.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

#: Enough for a stable median, and for a p95 that differs from the maximum.
ROUNDS = 20

#: Phase of a side that has only one.
WHOLE = "the whole"

#: Seconds by phase of one run of one side.
Sample = Mapping[str, float]


@dataclass(frozen=True)
class Side:
    """One implementation; `run` does the work once and returns the seconds of each phase."""

    name: str
    run: Callable[[], Sample]


def timed(work: Callable[[], object]) -> Callable[[], Sample]:
    """Make the `run` of a side that consists of one call."""

    def run() -> Sample:
        began = time.perf_counter()
        work()
        return {WHOLE: time.perf_counter() - began}

    return run


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Goal:
    """Limits of one phase against the first reference; None is no limit."""

    #: Highest ratio of ours to theirs: the median of the rounds' ratios, and the ratio of the two p95.
    median: float | None = None
    p95: float | None = None
    #: Lowest rate: the contest's `amount` per second.
    per_second: float | None = None


@dataclass(frozen=True)
class Contest:
    """Our side against its references. `before` is called before each run of each side, and is not timed."""

    title: str
    ours: Side
    references: Sequence[Side]
    before: Callable[[], object] = field(default=_nothing)
    #: Default number of rounds.
    rounds: int = ROUNDS
    #: By phase.
    goals: Mapping[str, Goal] = field(default_factory=dict)
    #: Jobs or requests of one run; None where a run is one unit of work.
    amount: int | None = None
    #: Phases that have a rate; None means all.
    amount_of: Collection[str] | None = None
    #: Whether an uncounted round runs first. Off where a run is long and needs no warm-up.
    warm_up: bool = True

    def rounds_of(self, requested: int | None) -> int:
        """The number of rounds to run: `requested`, or the contest's own when it is None."""
        return self.rounds if requested is None else requested

    @property
    def sides(self) -> list[Side]:
        """All sides, ours first."""
        return [self.ours, *self.references]


#: The runs of each side in the order of the rounds, by the side's name.
Samples = Mapping[str, Sequence[Sample]]


def hold(contest: Contest, rounds: int | None) -> Samples:
    """Run every side `rounds` times, or the contest's own number, after one uncounted round if `warm_up` is set."""
    taken: dict[str, list[Sample]] = {side.name: [] for side in contest.sides}
    for number in range(0 if contest.warm_up else 1, contest.rounds_of(rounds) + 1):
        for side in rotated(contest.sides, number):
            contest.before()
            sample = side.run()
            if number > 0:
                taken[side.name].append(sample)
    return taken


def rotated(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """The order of the sides in round `number`; each side comes first equally often."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]
