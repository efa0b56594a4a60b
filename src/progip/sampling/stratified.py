"""Every stratum gets its planned part of the runs: proportional or Neyman allocation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.random import uniforms
from progip.options import check_read
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan, planned
from progip.sampling.strata import FACTORS, OF_IMAGE, Strata, strata_of
from progip.statistics.allocation import AIMS, neyman, smoothed_rates, spread

ALLOCATIONS = ("proportional", "neyman")
#: odd multiplier next to 2**64 divided by the golden ratio: the multiples of it, modulo 2**64, are
#: spread evenly over every stretch of runs (Knuth, TAOCP 3, section 6.4)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(kw_only=True)
class Stratified(SamplingPlan):
    """Strata are all combinations of the factors; runs visit them in a fixed, even order.

    Run i's stratum is where i times a constant, modulo 1, from a start drawn from seed and cell,
    falls among the cumulated allocations: any stretch of runs has every stratum's due, to within a
    few rows, so a campaign may be stopped or continued anywhere. Site, bit, neuron and image are
    drawn within the stratum by the fault model's law.

    Attributes:
        by: factors, see ``progip.sampling.strata``: ``bit``; ``layer``; ``change``, how large a
            change the flip makes, which follows from bit and fault-free value; of the image either
            ``correct``, whether its fault-free outcome is right (other images cannot fail), or
            ``margin``, that and how near its score is to the OOD threshold. Strata that are too
            small are taken together along the last factor first.
        allocation: ``proportional`` to the fault model's probability, or ``neyman``: what the first
            ``pilot`` runs show decides the allocation of all later ones.
        pilot: that number of runs.
        pilot_even: share of the pilot that visits all changes and margins alike; the rest is
            proportional.
        aim: what Neyman's allocation is best for: ``failure_rate``, or ``detection_accuracy`` for
            it and the share of failures that checks of gradient, score or activations detect.
        defensive: share of the later runs that stays proportional; no weight exceeds 1 over it.
    """

    sentence: ClassVar[str] = (
        "Runs are drawn from strata of faults and images, and weighted by what each stratum "
        "is of all faults [Cochran]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Cochran": "Cochran: Sampling Techniques. 3rd edition, Wiley, 1977.",
    }

    by: list[str] = field(default_factory=lambda: ["change", "margin", "layer"])
    allocation: str = "neyman"
    pilot: int = 5000
    pilot_even: float = 0.5
    aim: str = "detection_accuracy"
    defensive: float = 0.1

    def __post_init__(self) -> None:
        if not self.by or len(set(self.by)) != len(self.by) or not set(self.by) <= set(FACTORS):
            raise ProgipError(
                f"sampling.by={list(self.by)}: give one or more of {', '.join(FACTORS)}, each once"
            )
        if set(OF_IMAGE) <= set(self.by):
            raise ProgipError(
                f"sampling.by={list(self.by)}: margin tells correct images apart, leave correct out"
            )
        for key, value, choices in (
            ("allocation", self.allocation, ALLOCATIONS),
            ("aim", self.aim, AIMS),
        ):
            if value not in choices:
                raise ProgipError(f"sampling.{key}={value!r} is not one of {', '.join(choices)}")
        if self.pilot < 100:
            raise ProgipError(f"sampling.pilot={self.pilot}: too few to learn from; give 100 runs")
        if not 0 <= self.pilot_even < 1:
            raise ProgipError(
                f"sampling.pilot_even={self.pilot_even}: give a share from 0 to below 1"
            )
        if not 0 < self.defensive <= 1:
            raise ProgipError(
                f"sampling.defensive={self.defensive}: give a share above 0 and at most 1"
            )
        needs = ("allocation", ("neyman",))
        check_read(
            self, "sampling", dict.fromkeys(("pilot", "pilot_even", "aim", "defensive"), needs)
        )
        self._strata: tuple[FaultSpace, Strata] | None = None  # of the space last asked for

    @property
    def pilot_runs(self) -> int:
        return self.pilot if self.allocation == "neyman" else 0

    def strata(self, space: FaultSpace) -> Strata:
        """The strata of a space. Raises ProgipError when one is empty."""
        if self._strata is None or self._strata[0] is not space:
            self._strata = (space, strata_of(space, list(self.by)))
        return self._strata[1]

    def shares(self, space: FaultSpace) -> np.ndarray:
        return self.strata(space).shares

    def pilot_allocation(self, strata: Strata) -> np.ndarray:
        """(H,) part of the runs each stratum gets before the pilot is done."""
        if self.allocation == "proportional":
            return strata.shares
        return _whole_parts((1 - self.pilot_even) * strata.shares + self.pilot_even * strata.even)

    def allocations(self, strata: Strata, pilot: Pilot | None) -> np.ndarray:
        """(H,) part of the later runs each stratum gets; ``pilot`` None: as in the pilot."""
        if pilot is None or self.allocation == "proportional":
            return self.pilot_allocation(strata)
        failures, quiet = (
            smoothed_rates(pilot.rows, count, strata.levels, strata.wider)
            for count in (pilot.failures, pilot.quiet)
        )
        spreads = spread(strata.shares, failures, np.minimum(quiet, failures), self.aim)
        return _whole_parts(neyman(strata.shares, spreads, self.defensive))

    def plan(
        self,
        space: FaultSpace,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        if start < self.pilot_runs < stop:
            middle = self.pilot_runs
            parts = [(start, middle, None), (middle, stop, pilot)]
            return pa.concat_tables(self.plan(space, seed, key, *part) for part in parts)
        if stop <= self.pilot_runs:
            pilot = None
        elif self.pilot_runs and pilot is None:
            raise ValueError("runs after the pilot need the pilot")
        strata = self.strata(space)
        allocation = self.allocations(strata, pilot)
        runs = np.arange(start, stop, dtype=np.int64)
        stratum = np.searchsorted(np.cumsum(allocation), _even(seed, key, runs), side="right")
        stratum = np.minimum(stratum, len(allocation) - 1)
        u = uniforms(seed, key, start, stop)
        atom, image, neuron = strata.draw(stratum, u)
        weight = (strata.shares / allocation)[stratum]
        return planned(space.atoms, runs, image, atom, neuron, weight, stratum)

    def describe(self, space: FaultSpace, pilot: Pilot | None) -> dict[str, Any]:
        strata = self.strata(space)
        first, later = self.pilot_allocation(strata), self.allocations(strata, pilot)
        return {
            "name": self.name,
            "by": list(self.by),
            "pilot_runs": self.pilot_runs,
            "strata": [
                {"name": name, "share": float(w), "pilot": float(a), "allocation": float(b)}
                for name, w, a, b in zip(strata.names, strata.shares, first, later, strict=True)
            ],
        }


def _whole_parts(allocation: np.ndarray) -> np.ndarray:
    """In whole parts of 2**-40: no rounding of another machine moves a run to another stratum."""
    parts = np.maximum(np.rint(allocation * 2.0**40), 1)
    result: np.ndarray = parts / parts.sum()
    return result


def _even(seed: int, key: str, runs: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), evenly spread over every stretch of runs."""
    start = np.uint64(int(uniforms(seed, f"{key}|strata", 0, 1)[0, 0] * 2.0**53) << 11)
    words = start + runs.astype(np.uint64) * GOLDEN
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
