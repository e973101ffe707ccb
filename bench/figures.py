"""Computes the figures of a comparison from the seconds of its runs.

The ratio is the median of the rounds' ratios. A ratio of two medians would compare a quiet minute of one side with a
busy minute of the other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.comparison import Contest, Goal, Samples


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
    rounds: int
    #: Units per second, by the median; None where a run is one unit of work.
    ours_per_second: float | None = None
    theirs_per_second: float | None = None
    goal: Goal | None = None
    #: Why it does not count; see `calibration`.
    unmeasured: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a measurement."""
        if self.goal is None or self.unmeasured:
            return None
        below = ((self.ratio, self.goal.median), (self.ratio_p95, self.goal.p95))
        quick = self.goal.per_second is None or (self.ours_per_second or 0.0) >= self.goal.per_second
        return quick and all(limit is None or value <= limit for value, limit in below)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measured value that at least `percent` of the values do not exceed; no interpolation."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures(contest: Contest, samples: Samples, unmeasured: str = "") -> Iterator[Figure]:
    """One figure for each phase and reference."""
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
