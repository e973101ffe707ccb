"""From what each run took to the few figures that are shown.

The ratio is taken round by round and only then its median: dividing two medians would compare a quiet minute of
one side with a busy one of the other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.comparison import Contest, Goal, Samples


@dataclass(frozen=True)
class Spread:
    """Milliseconds: the middle, what nineteen runs out of twenty stay below, and the longest."""

    median_ms: float
    p95_ms: float
    longest_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Of at least one run."""
        return cls(median(seconds) * 1000, percentile(seconds, 95) * 1000, max(seconds) * 1000)


@dataclass(frozen=True)
class Figure:
    """One phase of a contest: ours and one reference over the same rounds."""

    contest: str
    phase: str
    reference: str
    ours: Spread
    theirs: Spread
    #: Ours divided by theirs: the middle of the rounds' ratios, the ratio of the two p95, the worst round's.
    ratio: float
    ratio_p95: float
    worst: float
    rounds: int
    #: How much a second, by the median; None where a run is one thing.
    ours_per_second: float | None = None
    theirs_per_second: float | None = None
    goal: Goal | None = None
    #: Why it was not measured after all; see `calibration`.
    unmeasured: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None when there is none, or nothing was measured."""
        if self.goal is None or self.unmeasured:
            return None
        below = ((self.ratio, self.goal.median), (self.ratio_p95, self.goal.p95))
        quick = self.goal.per_second is None or (self.ours_per_second or 0.0) >= self.goal.per_second
        return quick and all(limit is None or value <= limit for value, limit in below)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above: one that was seen, nothing in between."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures(contest: Contest, samples: Samples, unmeasured: str = "") -> Iterator[Figure]:
    """One for each phase and reference."""
    for phase in samples[contest.ours.name][0]:
        ours = [sample[phase] for sample in samples[contest.ours.name]]
        for number, side in enumerate(contest.references):
            theirs = [sample[phase] for sample in samples[side.name]]
            ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
            yield Figure(
                contest=contest.title,
                phase=phase,
                reference=side.name,
                ours=Spread.of(ours),
                theirs=Spread.of(theirs),
                ratio=median(ratios),
                ratio_p95=percentile(ours, 95) / percentile(theirs, 95),
                worst=max(ratios),
                rounds=len(ours),
                ours_per_second=_rate(contest, phase, ours),
                theirs_per_second=_rate(contest, phase, theirs),
                goal=contest.goals.get(phase) if number == 0 else None,
                unmeasured=unmeasured,
            )


def _rate(contest: Contest, phase: str, seconds: Sequence[float]) -> float | None:
    done = contest.amount_of is None or phase in contest.amount_of
    return contest.amount / median(seconds) if contest.amount is not None and done else None
