"""What a stopping rule is: it looks at the rows at fixed run counts and says whether they do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from progip.described import Described
from progip.errors import ProgipError
from progip.statistics.intervals import Rate, check_confidence


class Estimate(Protocol):
    """The quantity at one look: its interval at any confidence."""

    def __call__(self, confidence: float) -> Rate: ...


@dataclass(frozen=True)
class Look:
    """One look at the rows.

    Attributes:
        runs: executed so far.
        rate: with the interval that stays valid under all looks so far.
        half_width: of that interval; relative to the estimate where the target is.
        enough: whether the target is reached.
    """

    runs: int
    rate: Rate
    half_width: float
    enough: bool


@dataclass(kw_only=True)
class StoppingRule(Described, ABC):
    """One rule; the fields of a subclass are the options of its YAML file."""

    name: str

    @property
    def quantity(self) -> str | None:
        """The rate that is watched; None where nothing is."""
        return None

    @abstractmethod
    def looks(self, runs: int) -> list[int]:
        """Run counts at which to look, in rising order; the last is the cap ``runs``."""

    @abstractmethod
    def judge(self, estimates: list[tuple[int, Estimate]]) -> Look | None:
        """The last of the looks so far, given (runs, estimate) of each; None: nothing is watched.

        A function of the rows alone, so that a campaign that is started again stops where it would
        have stopped.
        """


@dataclass(kw_only=True)
class PrecisionRule(StoppingRule):
    """Stops when the interval of one rate is narrow enough.

    Attributes:
        of: the rate, one of ``progip.analysis.kinds.Kinds.rates``.
        margin: half-width to reach, a fraction of 1; of the rate itself where ``relative``.
        confidence: of the interval, over all looks together.
        first: runs before the first look; each look comes after ``growth`` times as many.
        growth: see there.
        events: rows with and without the event that a look needs before it may stop; intervals of
            weighted rows are not to be trusted with fewer.
    """

    of: str = "failure_rate"
    margin: float = 0.001
    relative: bool = False
    confidence: float = 0.95
    first: int = 5000
    growth: float = 1.25
    events: int = 20

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0 < self.margin <= 1:
            raise ProgipError(
                f"stopping.margin={self.margin}: a half-width is a fraction above 0 and at most 1"
            )
        if self.first < 1:
            raise ProgipError(f"stopping.first={self.first}: look after at least one run")
        if self.growth < 1.01:
            raise ProgipError(f"stopping.growth={self.growth}: give at least 1.01")
        if self.events < 0:
            raise ProgipError(f"stopping.events={self.events}: must not be negative")

    @property
    def quantity(self) -> str | None:
        return self.of

    def looks(self, runs: int) -> list[int]:
        found = []
        count = float(self.first)
        while round(count) < runs:
            found.append(round(count))
            count = max(count * self.growth, count + 1)
        return [*found, runs]

    def width(self, rate: Rate) -> float:
        """Half-width of an interval, relative to the estimate where the target is."""
        half = (rate.high - rate.low) / 2
        if not self.relative:
            return half
        return half / rate.estimate if rate.estimate > 0 else float("inf")

    def ready(self, rate: Rate) -> bool:
        """Whether there are rows enough of both kinds to trust the interval."""
        return min(rate.events, rate.n - rate.events) >= self.events
