"""Intervals that keep their coverage although one looks at them while the sample grows."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import norm

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence

#: z-scores; a step of .064 gives critical values to three decimals
GRID = np.linspace(-8.0, 8.0, 251)


def obrien_fleming(information: float, alpha: float) -> float:
    """Error spent when a part `information` in (0, 1] of the planned one is there.

    2 - 2 Phi(z_{alpha/2} / sqrt(t)), Lan and DeMets, Biometrika 70 (1983), eq. for alpha_1*.

    >>> round(obrien_fleming(0.5, 0.05), 4), round(obrien_fleming(1.0, 0.05), 4)
    (0.0056, 0.05)
    """
    if not 0 < information <= 1:
        raise ProgipError(f"information is {information}; give a part above 0 and at most 1")
    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(information)))


def boundary(information: list[float], spent: list[float], now: float) -> float:
    """Critical value z of the last look, such that it errs with probability `now`, two-sided.

    The estimates of successive looks have independent increments (Jennison and Turnbull, Group
    Sequential Methods, 2000, ch. 3); their law is carried forward on a grid after Armitage,
    McPherson and Rowe (JRSS A 132, 1969).

    Args:
        information: of all looks so far, rising, on any scale.
        spent: error of each earlier look.
        now: error of this one.

    Raises:
        ProgipError: information that does not rise, or errors below 0 or above 1.
    """
    if len(information) != len(spent) + 1 or min(np.diff([0.0, *information])) <= 0:
        raise ProgipError("information must rise from look to look, one more look than errors")
    if not 0 < now < 1 or min([0.0, *spent]) < 0 or now + sum(spent) >= 1:
        raise ProgipError("errors must be above 0 and below 1 in all")
    density = _arriving(tuple(information), tuple(spent))
    return _tail(density, now)


@lru_cache(maxsize=256)
def _arriving(information: tuple[float, ...], spent: tuple[float, ...]) -> NDArray[np.float64]:
    """Law of the last look's z-score, of samples that no earlier look stopped."""
    if not spent:
        return np.asarray(norm.pdf(GRID))
    before = _arriving(information[:-1], spent[:-1])
    inside = np.where(np.abs(GRID) < _tail(before, spent[-1]), before, 0.0)
    return _step(inside, information[-2], information[-1])


def _step(density: NDArray[np.float64], before: float, after: float) -> NDArray[np.float64]:
    """Law of the next z-score from the (stopped) law of this one."""
    share = before / after
    spread = np.sqrt(1 - share)
    width = GRID[1] - GRID[0]
    # an increment narrower than the grid would be lost between its points
    spread = max(float(spread), 1.5 * width)
    kernel = norm.pdf((GRID[:, None] - np.sqrt(share) * GRID[None, :]) / spread) / spread
    result: NDArray[np.float64] = kernel @ density * width
    return result


def _tail(density: NDArray[np.float64], error: float) -> float:
    """z with probability `error` beyond it, both sides together."""
    width = GRID[1] - GRID[0]
    middle = len(GRID) // 2
    half = density[middle:] + density[middle::-1]
    beyond = np.concatenate([np.cumsum(((half[1:] + half[:-1]) / 2)[::-1])[::-1] * width, [0.0]])
    if error >= beyond[0]:
        return 0.0
    return float(np.interp(-error, -beyond, GRID[middle:]))


def mixture_interval(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence sequence of a proportion after k events in n trials: (low, high).

    All p with Be(k + 1/2, n - k + 1/2) / Be(1/2, 1/2) < p^k (1 - p)^(n - k) / alpha (Robbins 1970,
    the beta mixture). It holds the truth at all n at once with the confidence. k and n may be
    effective counts, not whole. n = 0 gives (0, 1). Raises ProgipError for a confidence outside
    (0, 1).

    >>> [round(limit, 4) for limit in mixture_interval(10, 1000)]
    [0.0024, 0.0262]
    """
    level = np.log(1 - check_confidence(confidence))
    if n <= 0:
        return 0.0, 1.0
    mixed = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5)

    def excess(p: float) -> float:
        return float(mixed - xlogy(k, p) - xlog1py(n - k, -p) + level)

    share = k / n
    low = brentq(excess, 1e-300, share) if k > 0 else 0.0
    high = brentq(excess, share, 1 - 1e-16) if k < n else 1.0
    return float(low), float(high)
