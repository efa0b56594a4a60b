"""Intervals where rows are not independent: several runs share an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import quantile

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence, weighted_rate

RESAMPLES = 2000
#: clusters times resamples that are in memory at once
_AT_ONCE = 1_000_000


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
    return cluster_bootstraps([events], weights, clusters, confidence, resamples)[0]


def cluster_bootstraps(
    events: Sequence[ArrayLike],
    weights: ArrayLike,
    clusters: ArrayLike,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[ClusteredRate]:
    """`cluster_bootstrap` of several events of the same rows, which share the clusters drawn.

    Args:
        events: booleans (rows,) each; other arguments and errors as of `cluster_bootstrap`.
    """
    check_confidence(confidence)
    happened = [np.asarray(event, dtype=bool) for event in events]
    weight = np.asarray(weights, dtype=np.float64)
    labels = np.asarray(clusters)
    if not len(labels) or {len(weight), *map(len, happened)} != {len(labels)}:
        raise ProgipError("give one weight and one cluster a row, and at least one row")
    _, index = np.unique(labels, return_inverse=True)
    base = np.bincount(index, weight).astype(np.float64)
    if len(base) < 2:
        raise ProgipError("all rows are of one cluster; there is nothing to resample")
    vary = [event for event in happened if event.any() and not event.all()]
    hits = [np.bincount(index, weight * event).astype(np.float64) for event in vary]
    drawn = iter(_drawn_rates(hits, base, resamples))
    found = []
    for event in happened:
        plain = weighted_rate(event, weight, confidence)
        if event.all() or not event.any():
            apart = weighted_rate(np.full(len(base), event.all()), base, confidence)
            low, high, effect = apart.low, apart.high, np.nan
        else:
            rates = next(drawn)
            tail = (1 - confidence) / 2
            low, high = (float(end) for end in quantile(rates, np.array([tail, 1 - tail])))
            independent = plain.estimate * (1 - plain.estimate) / plain.effective_n
            effect = float(rates.std(ddof=1)) ** 2 / independent
            if low == high:  # one cluster holds all events and was in every draw, or in none
                low, high = plain.low, plain.high
        found.append(ClusteredRate(plain.estimate, low, high, len(base), effect))
    return found


def _drawn_rates(
    hits: list[NDArray[np.float64]], base: NDArray[np.float64], resamples: int
) -> list[NDArray[np.float64]]:
    """(resamples,) rates of each event, from the weights of its clusters (clusters,) and of all.

    The draws are those of ``scipy.stats.bootstrap`` with ``default_rng(0)``.
    """
    if not hits:
        return []
    random, count = np.random.default_rng(0), len(base)
    step = max(1, _AT_ONCE // count)
    parts: list[list[NDArray[np.float64]]] = [[] for _ in hits]
    for start in range(0, resamples, step):
        chosen = random.integers(0, count, (min(step, resamples - start), count))
        whole = base[chosen].sum(-1)
        for part, weight in zip(parts, hits, strict=True):
            part.append(weight[chosen].sum(-1) / whole)
    return [np.concatenate(part) for part in parts]
