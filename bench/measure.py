"""A figure without a reference: a share of a core, megabytes, a delay."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A value that was measured once, or over one long period."""

    what: str
    value: float
    #: The unit as printed after the value: "ms", "MB", "% of a core".
    unit: str
    #: Limits; None is no limit.
    at_most: float | None = None
    at_least: float | None = None
    #: The number of games, where the bench varies it.
    games: int | None = None
    #: How the machine's speed changed meanwhile; see `calibration`.
    disturbed: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the value is within its limits; None without limits, or outside them on a disturbed machine."""
        if self.at_most is None and self.at_least is None:
            return None
        within = (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )
        return None if self.disturbed and not within else within
