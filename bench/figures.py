"""From what each run took to the few figures that are shown.

The ratio is taken round by round and only then its median: dividing two medians would compare a quiet minute of
one side with a busy one of the other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.contest import Contest, Samples


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
    #: Theirs divided by ours, of each round: the middle, and the one that is worst for us.
    times_as_quick: float
    at_least: float
    rounds: int


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above: one that was seen, nothing in between."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures(contest: Contest, samples: Samples) -> Iterator[Figure]:
    """One for each phase and reference."""
    for phase in samples[contest.ours.name][0]:
        ours = [sample[phase] for sample in samples[contest.ours.name]]
        for side in contest.references:
            theirs = [sample[phase] for sample in samples[side.name]]
            ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
            yield Figure(
                contest=contest.title,
                phase=phase,
                reference=side.name,
                ours=Spread.of(ours),
                theirs=Spread.of(theirs),
                times_as_quick=median(ratios),
                at_least=min(ratios),
                rounds=len(ours),
            )
