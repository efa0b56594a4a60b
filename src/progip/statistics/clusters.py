"""Intervals where rows are not independent: several runs share an image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence, weighted_rate

RESAMPLES = 2000


@dataclass(frozen=True)
class ClusteredRate:
    """A rate with its interval over clusters (fractions of 1) and what the clusters cost.

    `design_effect`: variance over clusters by that of independent rows; NaN where either is 0.
    """

    estimate: float
    low: float
    high: float
    clusters: int
    design_effect: float


def cluster_bootstrap(
    events: ArrayLike,
    weights: ArrayLike,
    clusters: ArrayLike,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> ClusteredRate:
    """Percentile bootstrap of a weighted rate, drawing whole clusters with replacement.

    A bootstrap without variation (no event at all, or nothing else) says nothing, so the interval
    of independent clusters, one row each, is given instead: never of zero width. The random numbers
    are fixed: the same rows give the same interval.

    Args:
        events: booleans (rows,).
        weights: (rows,), above 0.
        clusters: (rows,) label of each row's cluster, such as its image.

    Raises:
        ProgipError: no row, fewer than 2 clusters, lengths that differ, a bad confidence.
    """
    check_confidence(confidence)
    happened = np.asarray(events, dtype=bool)
    weight = np.asarray(weights, dtype=np.float64)
    labels = np.asarray(clusters)
    if not len(happened) == len(weight) == len(labels) or not len(happened):
        raise ProgipError("give one weight and one cluster a row, and at least one row")
    _, index = np.unique(labels, return_inverse=True)
    base = np.bincount(index, weight)
    hits = np.bincount(index, weight * happened)
    if len(base) < 2:
        raise ProgipError("all rows are of one cluster; there is nothing to resample")
    plain = weighted_rate(happened, weight, confidence)
    if happened.all() or not happened.any():
        apart = weighted_rate(np.full(len(base), happened.all()), base, confidence)
        return ClusteredRate(plain.estimate, apart.low, apart.high, len(base), np.nan)

    def ratio(hits: np.ndarray, base: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(hits.sum(axis) / base.sum(axis))

    found = bootstrap(
        (hits, base),
        ratio,
        paired=True,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=max(1, 10_000_000 // len(base)),
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    independent = plain.estimate * (1 - plain.estimate) / plain.effective_n
    effect = float(found.standard_error) ** 2 / independent
    if low == high:  # one cluster holds all events and was in every draw, or in none
        low, high = plain.low, plain.high
    return ClusteredRate(plain.estimate, float(low), float(high), len(base), effect)
