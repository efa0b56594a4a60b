"""How many faults a margin needs, and which margin a number of faults buys.

Leveugle, Calvez, Maistri, Vanhauwaert, "Statistical fault injection: quantified error and
confidence", DATE 2009: sampling without replacement from a finite population of faults.
"""

import math

from scipy.stats import norm

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence


def cut_off(confidence: float) -> float:
    """Two-sided cut-off of the normal law: 1.95996 at .95, 2.57583 at .99 (papers print 2.58)."""
    return float(norm.isf((1 - check_confidence(confidence)) / 2))


def sample_size(
    margin: float,
    *,
    confidence: float = 0.95,
    rate: float = 0.5,
    population: int | None = None,
    t: float | None = None,
) -> int:
    """Runs needed for a margin: n = N / (1 + e^2 (N-1) / (t^2 p (1-p))), rounded up (Leveugle).

    Args:
        margin: absolute half-width e, a fraction in (0, 1]; for a margin relative to a rare rate
            give `margin=r * rate`.
        confidence: of the interval.
        rate: the rate p expected, .5 being the worst case.
        population: number N of possible faults, None for endless.
        t: cut-off to use instead of that of `confidence`, such as the rounded 2.576 of a paper.

    Raises:
        ProgipError: a margin, rate, confidence, population or t that cannot be.

    >>> sample_size(0.01), sample_size(0.01, population=10_000)
    (9604, 4900)
    """
    if not 0 < margin <= 1:
        raise ProgipError(
            f"margin is {margin}; it is an absolute half-width: give a fraction above 0 and at "
            "most 1, such as .01"
        )
    endless = _variance(confidence, rate, t) / margin**2
    if population is None:
        return max(1, _up(endless))
    _check_population(population)
    return min(population, max(1, _up(population / (1 + (population - 1) / endless))))


def margin_of(
    n: int,
    *,
    confidence: float = 0.95,
    rate: float = 0.5,
    population: int | None = None,
    t: float | None = None,
) -> float:
    """Margin that n runs buy, the inverse of `sample_size`: e = t sqrt(p(1-p)/n (N-n)/(N-1)).

    Arguments as in `sample_size`.

    Returns:
        an absolute half-width, a fraction; 0 when the whole population is run.

    Raises:
        ProgipError: as in `sample_size`; also n below 1 or above the population.

    >>> round(margin_of(10_000), 4)
    0.0098
    """
    if n < 1:
        raise ProgipError(f"{n} runs have no margin; give at least 1")
    left = 1.0
    if population is not None:
        _check_population(population)
        if n > population:
            raise ProgipError(
                f"{n} runs of a population of {population} faults; lower the runs or run all"
            )
        left = (population - n) / (population - 1) if population > 1 else 0.0
    return math.sqrt(_variance(confidence, rate, t) / n * left)


def _variance(confidence: float, rate: float, t: float | None) -> float:
    """t^2 p (1-p)."""
    if not 0 < rate < 1:
        raise ProgipError(
            f"expected rate is {rate}; give a fraction between 0 and 1, .5 for the worst case"
        )
    if t is None:
        t = cut_off(confidence)
    elif not 0 < t < math.inf:
        raise ProgipError(f"cut-off t is {t}; give a positive number or leave it out")
    return t * t * rate * (1 - rate)


def _check_population(population: int) -> None:
    if population < 1:
        raise ProgipError(f"the population holds {population} faults; it must hold at least 1")


def _up(value: float) -> int:
    """Rounded up, but not for what is only the rounding error of a product."""
    return math.ceil(value * (1 - 1e-12))
