"""Weighted termination (Russian roulette): a run of tiny change goes on with a known probability.

A run that goes on counts 1 / probability, a run that is ended counts as its fault-free execution;
``analysis.tally`` makes unbiased rates of both.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from progip.fault_models.random import uniforms


@dataclass(frozen=True)
class Roulette:
    """Which runs are ended, and when.

    Attributes:
        probability: with which a run of tiny change goes on.
        at_fault: the change of the value that is hit, in parts of the largest fault-free magnitude
            of its tensor in that image, up to which it is tiny.
        at_logits: the largest change of a logit of the first pass, in parts of the largest
            fault-free magnitude, up to which it is tiny.
        first: run from which on runs are ended; those before are executed whole.
        seed, key: of the random numbers.
        spared: images of which no run is ended.
    """

    probability: float
    at_fault: float
    at_logits: float
    first: int
    seed: int
    key: str
    spared: frozenset[int] = frozenset()

    def goes_on(self, runs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each run goes on, should its change become tiny; by (seed, key, run) alone."""
        low, high = int(runs.min()), int(runs.max())
        drawn = uniforms(self.seed, f"{self.key}|roulette", low, high + 1)[runs - low, 0]
        found: NDArray[np.bool_] = (drawn < self.probability) | (runs < self.first)
        return found


@dataclass
class Game:
    """The roulette of the runs of one propagation.

    Each run plays once at most: where its change is tiny for the first time.

    Args:
        runs, images: (runs,) number of each run, and of its image.

    Attributes:
        factor: (runs,) what a run counts: 1 where it has not played, 0 where it was ended.
        at_fault, at_logits: (runs,) changes, in the units of ``Roulette``; NaN for none.
    """

    roulette: Roulette
    runs: NDArray[np.int64]
    images: NDArray[np.integer]
    factor: NDArray[np.float64] = field(init=False)
    at_fault: NDArray[np.float32] = field(init=False)
    at_logits: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self._goes_on = self.roulette.goes_on(self.runs)
        spared = np.isin(self.images, list(self.roulette.spared))
        self._plays = (self.runs >= self.roulette.first) & ~spared
        self.factor = np.ones(len(self.runs))
        self.at_fault, self.at_logits = np.full((2, len(self.runs)), np.nan, dtype=np.float32)

    def played(
        self, members: NDArray[np.int64], change: NDArray[np.floating], limit: float
    ) -> NDArray[np.bool_]:
        """(members,) which runs are ended, changes up to a limit being tiny."""
        plays = self._plays[members] & (self.factor[members] == 1) & (change > 0)
        plays &= change <= limit
        goes_on = self._goes_on[members]
        self.factor[members[plays & goes_on]] = 1 / self.roulette.probability
        ended: NDArray[np.bool_] = plays & ~goes_on
        self.factor[members[ended]] = 0.0
        return ended

    @property
    def ended(self) -> NDArray[np.bool_]:
        """(runs,) those that were ended."""
        found: NDArray[np.bool_] = self.factor == 0
        return found

    def columns(self) -> dict[str, NDArray]:
        """Those of ``records.ROULETTE``."""
        return {
            "roulette": self.factor,
            "change_at_fault": self.at_fault,
            "change_at_logits": self.at_logits,
        }


def untouched(count: int) -> dict[str, NDArray]:
    """``Game.columns`` of runs that were executed whole, by an executor that measures no change."""
    nothing = np.full(count, np.nan, dtype=np.float32)
    return {"roulette": np.ones(count), "change_at_fault": nothing, "change_at_logits": nothing}
