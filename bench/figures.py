"""Computes the figures of a comparison from the seconds of its runs.

The ratio is the median of the rounds' ratios. A ratio of two medians would compare a quiet minute of one side with a
busy minute of the other. Its interval holds the true median with a probability of 95 %, without an assumption about the
distribution: it lies between two of the ordered ratios, which the binomial distribution chooses.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.comparison import Contest, Goal, Samples

#: Of the interval of a ratio.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Milliseconds: median, p95 and maximum."""

    median_ms: float
    p95_ms: float
    longest_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """The spread of at least one run."""
        return cls(median(seconds) * 1000, percentile(seconds, 95) * 1000, max(seconds) * 1000)


@dataclass(frozen=True)
class Figure:
    """One phase of a comparison: our side and one reference over the same rounds."""

    contest: str
    phase: str
    reference: str
    ours: Spread
    theirs: Spread
    #: Ours divided by theirs: the median of the rounds' ratios, the ratio of the two p95, the highest of a round.
    ratio: float
    ratio_p95: float
    worst: float
    #: The interval of the ratio.
    low: float
    high: float
    rounds: int
    #: Units per second, by the median; None where a run is one unit of work.
    ours_per_second: float | None = None
    theirs_per_second: float | None = None
    goal: Goal | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal, or when the interval of the ratio leaves it open."""
        if self.goal is None:
            return None
        quick = self.goal.per_second is None or (self.ours_per_second or 0.0) >= self.goal.per_second
        even = self.goal.p95 is None or self.ratio_p95 <= self.goal.p95
        if self.goal.median is None or self.ratio <= self.goal.median:
            return quick and even
        return None if quick and even and self.low <= self.goal.median else False


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measured value that at least `percent` of the values do not exceed; no interpolation."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the median with a confidence of 95 %; below six values the least and the greatest."""
    ordered, count = sorted(values), len(values)
    outside, below = 0, 0.0
    while (below := below + math.comb(count, outside) / 2**count) <= (1 - CONFIDENCE) / 2:
        outside += 1
    cut = max(outside - 1, 0)
    return ordered[cut], ordered[-1 - cut]


def figures(contest: Contest, samples: Samples) -> Iterator[Figure]:
    """One figure for each phase and reference."""
    for phase in samples[contest.ours.name][0]:
        ours = [sample[phase] for sample in samples[contest.ours.name]]
        for number, side in enumerate(contest.references):
            theirs = [sample[phase] for sample in samples[side.name]]
            ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
            low, high = interval(ratios)
            yield Figure(
                contest=contest.title,
                phase=phase,
                reference=side.name,
                ours=Spread.of(ours),
                theirs=Spread.of(theirs),
                ratio=median(ratios),
                ratio_p95=percentile(ours, 95) / percentile(theirs, 95),
                worst=max(ratios),
                low=low,
                high=high,
                rounds=len(ours),
                ours_per_second=_rate(contest, phase, ours),
                theirs_per_second=_rate(contest, phase, theirs),
                goal=contest.goals.get(phase) if number == 0 else None,
            )


def _rate(contest: Contest, phase: str, seconds: Sequence[float]) -> float | None:
    done = contest.amount_of is None or phase in contest.amount_of
    return contest.amount / median(seconds) if contest.amount is not None and done else None
