"""Medians of paired measurements, such as runtimes taken in turns, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence

RESAMPLES = 2000


class Median(NamedTuple):
    """A median, or a mean of medians, with its interval; `n`: the measurements behind it."""

    estimate: float
    low: float
    high: float
    n: int


def median_ratio(pairs: ArrayLike, confidence: float = 0.95) -> Median:
    """Median of second / first over pairs (n, 2) of positive measurements.

    Pairing cancels what slows both members alike; the median passes over the pairs in which only
    one was interrupted. The interval is the bootstrap's percentile interval over pairs. The random
    numbers are fixed: the same pairs give the same interval.

    Raises:
        ProgipError: fewer than 2 pairs, a measurement that is not positive and finite, or a bad
            confidence.
    """
    return mean_of_median_ratios([pairs], confidence)


def median_difference(pairs: ArrayLike, confidence: float = 0.95) -> Median:
    """Median of second - first over pairs (n, 2); interval and errors as `median_ratio`."""
    checked = _checked(pairs)
    return _of_samples([checked[:, 1] - checked[:, 0]], confidence)


def mean_of_median_ratios(groups: Sequence[ArrayLike], confidence: float = 0.95) -> Median:
    """The mean over groups, each counting alike, of the median ratio of its pairs.

    Every group is resampled by itself. Arguments and errors as `median_ratio`, a group each.
    """
    checked = [_checked(pairs) for pairs in groups]
    if not checked:
        raise ProgipError("give at least one group of pairs")
    return _of_samples([pairs[:, 1] / pairs[:, 0] for pairs in checked], confidence)


def _of_samples(samples: list[np.ndarray], confidence: float) -> Median:
    check_confidence(confidence)
    random = np.random.default_rng(0)
    drawn = np.zeros(RESAMPLES)
    for sample in samples:
        rows = max(1, 500_000 // len(sample))  # resamples at once, to bound the memory
        for start in range(0, RESAMPLES, rows):
            part = drawn[start : start + rows]
            part += np.median(random.choice(sample, (len(part), len(sample))), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn / len(samples), (tail, 1 - tail))
    estimate = float(np.mean([np.median(sample) for sample in samples]))
    return Median(estimate, float(low), float(high), sum(map(len, samples)))


def _checked(pairs: ArrayLike) -> np.ndarray:
    values = np.asarray(pairs, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or len(values) < 2:
        raise ProgipError(f"give pairs of shape (n, 2) with n of at least 2, not {values.shape}")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ProgipError("measurements must be positive and finite")
    return values
