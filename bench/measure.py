"""A figure that stands alone, with nothing to be compared with: a share of a core, megabytes, a delay."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What was measured once, or over one long while."""

    what: str
    value: float
    #: As it is written behind the value: "ms", "MB", "% of a core".
    unit: str
    #: Limits; None where nothing is asked.
    at_most: float | None = None
    at_least: float | None = None
    #: How many games there were, where that is what is varied.
    games: int | None = None
    #: Why it was not measured after all; see `calibration`.
    unmeasured: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether it keeps its limits; None when it has none, or was not measured."""
        if self.unmeasured or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )
