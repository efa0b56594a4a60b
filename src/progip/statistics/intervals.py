"""Rates with their intervals, from plain counts and from weighted rows.

Rates are fractions of 1, never per cent. Rows are taken as independent draws; runs that share an
image are nearly so, and a cluster bootstrap by image is the remedy where they are not.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from progip.errors import ProgipError

#: our name of an interval -> the name statsmodels has for it
METHODS = {"wilson": "wilson", "clopper_pearson": "beta"}


@dataclass(frozen=True)
class Rate:
    """An estimated rate with everything that must be said beside it.

    `events` and `n` are counts of rows; `estimate`, `low`, `high` are fractions (NaN, 0 and 1 when
    n is 0: nothing is known). `effective_n` is the size of the unweighted sample with the same
    variance; it equals n when all weights are equal.
    """

    events: int
    n: int
    estimate: float
    low: float
    high: float
    effective_n: float


def check_confidence(confidence: float) -> float:
    """The confidence as a float; ProgipError unless it lies strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ProgipError(f"confidence is {confidence}; give a number between 0 and 1, such as .95")
    return float(confidence)


def proportion_interval(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95, method: str = "wilson"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided interval of a proportion, for k events in n trials.

    `wilson` is the score interval (Wilson, JASA 1927, eq. for p; the default), `clopper_pearson`
    the exact, conservative one (Biometrika 1934).

    Args:
        k: whole numbers or arrays that broadcast to one shape with n.
        n: trials.
        confidence: of the interval.
        method: a key of METHODS.

    Returns:
        (low, high) of that shape, as fractions of 1; n = 0 gives (0, 1).

    Raises:
        ProgipError: counts that are negative, not whole or above n, a confidence outside (0, 1), an
            unknown method.

    >>> low, high = proportion_interval(0, 100)
    >>> float(low), round(float(high), 4)
    (0.0, 0.037)
    """
    check_confidence(confidence)
    _check_method(method)
    count, trials = np.broadcast_arrays(_whole(k, "k"), _whole(n, "n"))
    if (count > trials).any():
        i = np.flatnonzero(count > trials)[0]
        raise ProgipError(
            f"{count.flat[i]} events in {trials.flat[i]} trials: k may not exceed n; check which "
            "count is which"
        )
    return _interval(count.astype(float), trials.astype(float), confidence, method)


def rate(k: int, n: int, confidence: float = 0.95, method: str = "wilson") -> Rate:
    """`proportion_interval` of one pair of counts, as a Rate. Raises as that does.

    >>> found = rate(12, 1000)
    >>> round(found.estimate, 4), round(found.low, 4), round(found.high, 4)
    (0.012, 0.0069, 0.0209)
    """
    low, high = proportion_interval(k, n, confidence, method)
    estimate = int(k) / int(n) if n else np.nan
    return Rate(int(k), int(n), estimate, float(low), float(high), float(n))


def weighted_rate(events: ArrayLike, weights: ArrayLike, confidence: float = 0.95) -> Rate:
    """Rate of an event among rows that carry weights; see `rate_from_sums`.

    Args:
        events: booleans (rows,).
        weights: target over sampling probability (rows,), finite and positive.

    Raises:
        ProgipError: other weights or lengths that differ.
    """
    happened = np.asarray(events, dtype=bool)
    weight = np.asarray(weights, dtype=np.float64)
    if happened.shape != weight.shape or happened.ndim != 1:
        raise ProgipError(
            f"{happened.shape} events and {weight.shape} weights; give one weight a row"
        )
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ProgipError("a weight is not a positive finite number; weights must be above 0")
    hit = weight[happened]
    return rate_from_sums(
        n=len(weight),
        events=len(hit),
        weight=float(weight.sum()),
        weight_squared=float(np.square(weight).sum()),
        event_weight=float(hit.sum()),
        event_weight_squared=float(np.square(hit).sum()),
        confidence=confidence,
    )


def rate_from_sums(
    *,
    n: int,
    events: int,
    weight: float,
    weight_squared: float,
    event_weight: float,
    event_weight_squared: float,
    confidence: float = 0.95,
    method: str = "wilson",
) -> Rate:
    """Weighted rate from the sums over rows that a stream can keep: w, w^2, and both over events.

    The estimate is self-normalised, p = sum(w I) / sum(w), with the linearised variance
    sum(w^2 (I - p)^2) / sum(w)^2 (sheet 12, importance sampling; Cochran, Sampling Techniques,
    eq. 6.13). The interval is Wilson's at the effective size p (1 - p) / variance; without an
    event, or with nothing else, the variance says nothing and Kish's sum(w)^2 / sum(w^2) takes its
    place. Equal weights give the plain Wilson interval exactly.

    With a handful of events of very unequal weights no interval of this kind is safe: look at
    `events` too. Raises ProgipError for counts or a confidence that `rate` refuses.
    """
    if n == 0 or weight * weight == n * weight_squared:
        return rate(events, n, confidence, method)
    p = event_weight / weight
    spread = event_weight_squared * (1 - 2 * p) + p * p * weight_squared
    return rate_from_variance(
        n=n,
        events=events,
        estimate=p,
        variance=spread / (weight * weight),
        kish=weight * weight / weight_squared,
        confidence=confidence,
        method=method,
    )


def rate_from_variance(
    *,
    n: int,
    events: int,
    estimate: float,
    variance: float,
    kish: float,
    degrees: float = np.inf,
    confidence: float = 0.95,
    method: str = "wilson",
) -> Rate:
    """A rate whose estimate and variance are known: the interval of the effective sample.

    That is p (1 - p) / variance rows, of which a share p are events (Korn and Graubard, Survey
    Methodology 24, 1998, for Clopper-Pearson; the same for Wilson). Where no row is an event, or
    every one is, the variance says nothing and `kish`, sum(w)^2 / sum(w^2), is the size. degrees:
    of freedom of the variance; the size shrinks by the square of normal over t cut-off, as there. n
    and events are counts of rows; n = 0 gives (0, 1). Raises ProgipError for counts that `rate`
    refuses, for a confidence outside (0, 1) and for an unknown method.
    """
    if n == 0:
        return rate(events, n, confidence, method)
    check_confidence(confidence)
    _check_method(method)
    if events in (0, n):
        p, effective = float(events == n), kish
    else:
        p = min(max(estimate, 0.0), 1.0)
        effective = p * (1 - p) / variance if variance > 0 else kish
        tail = (1 - confidence) / 2
        effective *= float(stats.norm.isf(tail) / stats.t.isf(tail, degrees)) ** 2
    low, high = _interval(np.array(p * effective), np.array(effective), confidence, method)
    return Rate(int(events), int(n), p, float(low), float(high), effective)


def effective_interval(
    k: NDArray[np.float64], n: float, confidence: float = 0.95, method: str = "wilson"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`proportion_interval` for effective counts, which need not be whole; 0 <= k <= n."""
    check_confidence(confidence)
    _check_method(method)
    size = np.full(k.shape, float(n))
    return _interval(np.clip(k, 0.0, size), size, confidence, method)


def effective_size_warning(
    n: float, weight: float, weight_squared: float, largest: float, unit: str = "row"
) -> str:
    """What is wrong with the weights of n rows, in a sentence; empty when nothing is.

    Warned of: an effective size sum(w)^2 / sum(w^2) below n / 10, or one row with more than 5 % of
    all weight.

    Args:
        n: rows.
        weight: sum of the weights.
        weight_squared: sum of their squares.
        largest: the largest weight.
        unit: what was drawn, in the singular.
    """
    if not n:
        return ""
    effective = weight * weight / weight_squared
    if effective < 0.1 * n:
        return f"the weights are poor: {n:,.0f} {unit}s are worth {effective:,.0f} unweighted ones"
    if n >= 20 and largest > 0.05 * weight:
        return f"one of {n:,.0f} {unit}s carries {100 * largest / weight:.0f} % of all weight"
    return ""


def _interval(
    k: NDArray[np.float64], n: NDArray[np.float64], confidence: float, method: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval without checks; (0, 1) where n is 0; always holding k / n."""
    some = n > 0
    trials = np.where(some, n, 1.0)
    count = np.where(some, k, 0.0)
    share = k / trials
    if method == "wilson":  # a report asks for tens of thousands, one by one
        square = _normal_quantile(confidence) ** 2 / trials
        middle = share + square / 2
        half = np.sqrt(square * (share * (1 - share) + square / 4))
        low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    else:
        low, high = proportion_confint(count, trials, alpha=1 - confidence, method=METHODS[method])
    # rounding may put a limit an ulp on the wrong side of k / n, or of 0 and 1
    low = np.where(k == 0, 0.0, np.clip(np.minimum(low, share), 0, 1))
    high = np.where(k == n, 1.0, np.clip(np.maximum(high, share), 0, 1))
    return np.where(some, low, 0.0), np.where(some, high, 1.0)


@cache
def _normal_quantile(confidence: float) -> float:
    """Of the two-sided interval: 1.96 for .95."""
    return float(stats.norm.isf((1 - confidence) / 2))


def _whole(value: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all() or (array % 1 != 0).any():
        raise ProgipError(f"{name} = {value!r} is not a whole number; give counts")
    if (array < 0).any():
        raise ProgipError(f"{name} = {value!r} is negative; give counts of 0 or more")
    return array.astype(np.int64)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ProgipError(f"unknown interval method {method!r}; there are {', '.join(METHODS)}")
