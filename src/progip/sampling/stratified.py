"""Every stratum gets its planned part of the runs: proportional or Neyman allocation."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.random import uniforms
from progip.sampling.base import Pilot, Population, SamplingPlan, planned
from progip.statistics.allocation import AIMS, neyman, smoothed_rates, spread

FACTORS = ("bit", "layer", "correct")
#: first bit of each field of a float32 after the mantissa: exponent, sign
FIELDS = (23, 31)
ALLOCATIONS = ("proportional", "neyman")
#: odd multiplier next to 2**64 divided by the golden ratio: the multiples of it, modulo 2**64, are
#: spread evenly over every stretch of runs (Knuth, TAOCP 3, section 6.4)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Strata:
    """The strata of one population.

    Attributes:
        atom: (A,) which part of the atoms each atom is in; a stratum is one part times one class
            of images.
        parts: number of parts.
        images: for each class of images its positions in the evaluation split.
        levels: (factors, H) level of each stratum in each factor, in the order of ``by``.
        wider: (factors, H) the same, of wider levels: sign, exponent or mantissa of a bit.
        names: (H,) such as ``bit=30 layer=fc correct``.
        shares: (H,) probability under the fault model.
    """

    atom: np.ndarray
    parts: int
    images: list[np.ndarray]
    levels: np.ndarray
    wider: np.ndarray
    names: list[str]
    shares: np.ndarray


@dataclass(kw_only=True)
class Stratified(SamplingPlan):
    """Strata are all combinations of the factors; runs visit them in a fixed, even order.

    Run i's stratum is where i times a constant, modulo 1, from a start drawn from seed and cell,
    falls among the cumulated allocations: any stretch of runs has every stratum's due, to within a
    few rows, so a campaign may be stopped or continued anywhere. Site, bit, neuron and image are
    drawn within the stratum by the fault model's law.

    Attributes:
        by: ``bit``, ``layer``, and ``correct``: whether the image's fault-free outcome is right
            (known before any fault; other images cannot fail).
        allocation: ``proportional`` to the fault model's probability, or ``neyman``: the first
            ``pilot`` runs are proportional and decide the allocation of all later ones.
        pilot: that number of runs.
        aim: what Neyman's allocation is best for: ``failure_rate``, or ``detection_accuracy`` for
            it and the share of failures that checks of gradient, score or activations detect.
        defensive: share of the later runs that stays proportional; no weight exceeds 1 over it.
    """

    by: list[str] = field(default_factory=lambda: ["bit", "layer", "correct"])
    allocation: str = "neyman"
    pilot: int = 5000
    aim: str = "detection_accuracy"
    defensive: float = 0.3

    def __post_init__(self) -> None:
        if not self.by or len(set(self.by)) != len(self.by) or not set(self.by) <= set(FACTORS):
            raise ProgipError(
                f"sampling.by={list(self.by)}: give one or more of {', '.join(FACTORS)}, each once"
            )
        for key, value, choices in (
            ("allocation", self.allocation, ALLOCATIONS),
            ("aim", self.aim, AIMS),
        ):
            if value not in choices:
                raise ProgipError(f"sampling.{key}={value!r} is not one of {', '.join(choices)}")
        if self.pilot < 100:
            raise ProgipError(f"sampling.pilot={self.pilot}: too few to learn from; give 100 runs")
        if not 0 < self.defensive <= 1:
            raise ProgipError(
                f"sampling.defensive={self.defensive}: give a share above 0 and at most 1"
            )

    @property
    def pilot_runs(self) -> int:
        return self.pilot if self.allocation == "neyman" else 0

    def strata(self, population: Population) -> Strata:
        """The strata of a population. Raises ProgipError when one is empty."""
        atoms = population.atoms
        codes: list[np.ndarray] = []
        labels: list[list[str]] = []
        wide: list[np.ndarray] = []
        for factor in self.by:
            if factor == "bit":
                bits = np.unique(atoms.bit)
                codes.append(np.searchsorted(bits, atoms.bit))
                labels.append([f"bit={b}" for b in bits])
                wide.append(np.digitize(bits, FIELDS))
            elif factor == "layer":
                codes.append(atoms.site)
                labels.append([f"layer={s.layer}#{s.call}" for s in atoms.sites])
                wide.append(np.zeros(len(atoms.sites), dtype=np.int64))
        sizes = [len(label) for label in labels]
        atom = np.ravel_multi_index(codes, sizes) if codes else np.zeros(len(atoms.bit), np.int64)
        parts = int(np.prod(sizes, dtype=np.int64))
        images = [np.arange(len(population.correct))]
        if "correct" in self.by:
            images = [np.flatnonzero(population.correct), np.flatnonzero(~population.correct)]
            images = [chosen for chosen in images if len(chosen)]
            labels.append(["correct", "wrong"] if len(images) == 2 else ["all images"])
            wide.append(np.arange(len(images)))
        weight = np.bincount(atom, atoms.probability, minlength=parts)
        if not (weight > 0).all():
            empty = np.unravel_index(int(np.argmin(weight)), sizes)
            name = " ".join(label[i] for label, i in zip(labels, empty, strict=False))
            raise ProgipError(f"sampling: {name} is a stratum without sites")
        grid = np.indices([*sizes, len(images)]).reshape(len(sizes) + 1, -1)
        if "correct" not in self.by:
            grid = grid[:-1]
        names = [" ".join(label[i] for label, i in zip(labels, column, strict=True))
                 for column in grid.T]  # fmt: skip
        wider = np.stack([w[level] for w, level in zip(wide, grid, strict=True)])
        part = np.array([len(chosen) for chosen in images]) / len(population.correct)
        shares = np.outer(weight, part).ravel()
        return Strata(atom, parts, images, grid, wider, names, shares / shares.sum())

    def shares(self, population: Population) -> np.ndarray:
        return self.strata(population).shares

    def allocations(self, strata: Strata, pilot: Pilot | None) -> np.ndarray:
        """(H,) part of the runs each stratum gets; ``pilot`` None: before the pilot is done."""
        if pilot is None or self.allocation == "proportional":
            return strata.shares
        failures, quiet = (
            smoothed_rates(pilot.rows, count, strata.levels, strata.wider)
            for count in (pilot.failures, pilot.quiet)
        )
        spreads = spread(strata.shares, failures, np.minimum(quiet, failures), self.aim)
        # whole parts of 2**-40: no rounding of another machine moves a run to another stratum
        parts = np.rint(neyman(strata.shares, spreads, self.defensive) * 2.0**40)
        return parts / parts.sum()

    def plan(
        self,
        population: Population,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        if start < self.pilot_runs < stop:
            middle = self.pilot_runs
            parts = [(start, middle, None), (middle, stop, pilot)]
            return pa.concat_tables(self.plan(population, seed, key, *part) for part in parts)
        if stop <= self.pilot_runs:
            pilot = None
        elif self.pilot_runs and pilot is None:
            raise ValueError("runs after the pilot need the pilot")
        strata, atoms = self.strata(population), population.atoms
        allocation = self.allocations(strata, pilot)
        runs = np.arange(start, stop, dtype=np.int64)
        stratum = np.searchsorted(np.cumsum(allocation), _even(seed, key, runs), side="right")
        stratum = np.minimum(stratum, len(allocation) - 1)
        part, group = np.divmod(stratum, len(strata.images))
        u = uniforms(seed, key, start, stop)
        order = np.argsort(strata.atom, kind="stable")
        first = np.searchsorted(strata.atom[order], np.arange(strata.parts + 1))
        ends = np.concatenate([[0.0], np.cumsum(atoms.probability[order])])
        low, high = ends[first[part]], ends[first[part + 1]]
        found = np.searchsorted(ends, low + u[:, 1] * (high - low), side="right") - 1
        atom = order[np.clip(found, first[part], first[part + 1] - 1)]
        image = np.empty(len(runs), dtype=np.int64)
        for number, chosen in enumerate(strata.images):
            rows = group == number
            image[rows] = chosen[(u[rows, 0] * len(chosen)).astype(np.int64)]
        weight = (strata.shares / allocation)[stratum]
        return planned(atoms, runs, image, atom, u[:, 2], weight, stratum)

    def describe(self, population: Population, pilot: Pilot | None) -> dict[str, Any]:
        strata = self.strata(population)
        later = self.allocations(strata, pilot)
        return {
            "name": self.name,
            "by": list(self.by),
            "pilot_runs": self.pilot_runs,
            "strata": [
                {"name": name, "share": float(share), "allocation": float(part)}
                for name, share, part in zip(strata.names, strata.shares, later, strict=True)
            ],
        }


def _even(seed: int, key: str, runs: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), evenly spread over every stretch of runs."""
    start = np.uint64(int(uniforms(seed, f"{key}|strata", 0, 1)[0, 0] * 2.0**53) << 11)
    words = start + runs.astype(np.uint64) * GOLDEN
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
