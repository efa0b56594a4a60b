"""Means of what outcomes measure: weighted, over strata, values that are not finite counted apart.

A mean is a ratio of two totals, of the values and of the rows they are taken of, over runs of a
sampling plan: its variance is that of Cochran, Sampling Techniques (1977), eq. 6.52, from sums that
a stream of rows can keep.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from progip.analysis.tally import Places, Tally
from progip.outcomes.declared import Measure
from progip.statistics import Rate, rate

#: of each stratum: rows; sums of w, w x, w^2, w^2 x, w^2 x^2 over rows of the base that are finite,
#: and how many those are
_SUMS = 6


@dataclass(frozen=True)
class MeanMoments:
    """Totals of a measure over a sample; those of independent samples are added with ``+``.

    Attributes:
        rows: of the base, finite.
        nonfinite: of the base, not finite.
        weight, value: totals W of the weights and V of weight times value.
        covariance: (2, 2) of (W, V).
    """

    rows: int
    nonfinite: int
    weight: float
    value: float
    covariance: NDArray[np.float64]

    def __add__(self, other: "MeanMoments") -> "MeanMoments":
        return MeanMoments(
            self.rows + other.rows,
            self.nonfinite + other.nonfinite,
            self.weight + other.weight,
            self.value + other.value,
            self.covariance + other.covariance,
        )

    def scaled(self, factor: float) -> "MeanMoments":
        """The same sample counting ``factor`` times as much."""
        return MeanMoments(
            self.rows,
            self.nonfinite,
            self.weight * factor,
            self.value * factor,
            self.covariance * factor**2,
        )

    def mean(self, confidence: float = 0.95) -> "Mean":
        """The mean of the finite values with Student's interval; NaN without any."""
        apart = rate(self.nonfinite, self.rows + self.nonfinite)
        if not self.rows:
            return Mean(0, math.nan, math.nan, math.nan, math.nan, apart)
        found = self.value / self.weight
        contrast = np.array([-found, 1.0])
        variance = max(float(contrast @ self.covariance @ contrast), 0.0) / self.weight**2
        if self.rows < 2:
            return Mean(self.rows, found, math.nan, math.nan, math.nan, apart)
        half = float(stats.t.ppf((1 + confidence) / 2, self.rows - 1)) * math.sqrt(variance)
        return Mean(self.rows, found, variance, found - half, found + half, apart)


@dataclass(frozen=True)
class Mean:
    """An estimated mean.

    Attributes:
        n: rows it is of.
        estimate, variance, low, high: the mean, the variance of that estimate, its interval.
        nonfinite: share of the base's rows whose value is not finite, and so not in the mean.
    """

    n: int
    estimate: float
    variance: float
    low: float
    high: float
    nonfinite: Rate


class MeanSums:
    """Keeps, row by row, what ``MeanMoments`` are made of."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._nonfinite = 0
        self._sums: list[NDArray[np.float64]] = []
        self._maps: list[pd.DataFrame] = []
        self._sizes: tuple[int, int] = (0, 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that ``add`` needs, beside those of a ``Tally``."""
        return tuple(filter(None, (self.measure.column, self.measure.minus, self.measure.base)))

    def add(self, columns: Mapping[str, NDArray], places: Places) -> None:
        """Count rows, which lie in the strata of ``Tally.places``."""
        measure = self.measure
        value = columns[measure.column].astype(np.float64)
        if measure.minus:
            with np.errstate(invalid="ignore"):
                value = value - columns[measure.minus]
        base = columns[measure.base] if measure.base else np.ones(len(value), dtype=bool)
        finite = np.isfinite(value)
        self._nonfinite += int((base & ~finite).sum())
        w = places.factor * (base & finite)
        x = np.where(finite, value, 0.0)
        if places.cluster is not None:
            self._add_maps(places, w, w * x, base & finite)
            return
        terms = (None, w, w * x, w * w, w * w * x, w * w * x * x)
        if not self._sums:
            self._sums = [np.zeros((_SUMS + 1, size)) for size in places.sizes]
        for sums, rows in zip(self._sums, places.phases, strict=True):
            stratum = places.stratum[rows]
            size = sums.shape[1]
            for sum_, term in zip(sums, terms, strict=False):
                weights = None if term is None else term[rows]
                sum_ += np.bincount(stratum, weights, minlength=size)
            sums[-1] += np.bincount(stratum, (base & finite)[rows], minlength=size)

    def _add_maps(
        self, places: Places, w: NDArray[np.float64], wx: NDArray[np.float64], counted: NDArray
    ) -> None:
        """Keep the sums of each fault map: its rows are one unit of the sample."""
        frame = pd.DataFrame(
            {
                "map": places.cluster,
                "pilot": places.phases[0],
                "stratum": places.stratum,
                "w": w,
                "wx": wx,
                "counted": counted,
            }
        )
        self._maps.append(frame.groupby(["map", "pilot", "stratum"]).sum())
        self._sizes = places.sizes

    def _of_maps(self) -> list[NDArray[np.float64]]:
        """The sums of ``add`` over whole maps, by phase and stratum."""
        whole = pd.concat(self._maps).groupby(level=[0, 1, 2]).sum().reset_index()
        found = []
        for size, pilot in zip(self._sizes, (True, False), strict=True):
            part = whole[whole["pilot"] == pilot]
            w, wx = part["w"].to_numpy(), part["wx"].to_numpy()
            terms = (None, w, wx, w * w, w * wx, wx * wx, part["counted"].to_numpy(float))
            stratum = part["stratum"].to_numpy()
            sums = [np.bincount(stratum, term, minlength=size) for term in terms]
            found.append(np.stack(sums).astype(float))
        return found

    def moments(self, tally: Tally) -> MeanMoments:
        """The moments of the rows so far, which ``tally`` has counted, too."""
        weight = value = 0.0
        covariance = np.zeros((2, 2))
        rows = 0.0
        kept = self._of_maps() if self._maps else self._sums
        if not kept:  # of a cell that has begun, and has no rows yet
            return MeanMoments(0, self._nonfinite, 0.0, 0.0, covariance)
        phases = zip(kept, tally.factors(), tally.groups(), strict=True)
        for sums, factor, group in phases:
            power = np.array([0, 1, 1, 2, 2, 2, 0])[:, None]
            scaled = sums * factor**power
            n, w, wx, ww, wwx, wwxx, counted = (np.bincount(group, part) for part in scaled)
            rows += counted.sum()
            weight += float(w.sum())
            value += float(wx.sum())
            some = np.maximum(n, 1)
            spread = np.where(n > 1, n / np.maximum(n - 1, 1), 1.0)
            crossed = float((spread * (wwx - w * wx / some)).sum())
            covariance += np.array(
                [
                    [float((spread * (ww - w * w / some)).sum()), crossed],
                    [crossed, float((spread * (wwxx - wx * wx / some)).sum())],
                ]
            )
        return MeanMoments(int(rows), self._nonfinite, weight, value, covariance)
