"""How many runs each stratum gets."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from progip.errors import ProgipError

AIMS = ("failure_rate", "detection_accuracy")
#: failures that what is expected of a level or stratum counts, against those it has shown
PRIOR_FAILURES = 1.0


def smoothed_rates(
    rows: NDArray, failures: NDArray, levels: NDArray[np.int64], wider: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Failure rate of every stratum from a small pilot, (H,), in (0, 1).

    Most strata have a row or two and no failure. A stratum is expected at the product of the rates
    of its levels, p prod(p_level / p), as an independence model has it; a level at the rate of the
    wider level it belongs to: a mantissa bit at that of all mantissa bits. Then, for every pair of
    factors, by what was seen where two levels meet against what was expected there: a change that
    is harmless elsewhere may matter in the last layer. What was seen changes what was expected by
    (k + 1) / (k expected + 1), the mean of a gamma law, so that few failures change little. Nothing
    is estimated at 0: where no failure was seen, half of one is taken.

    Args:
        rows: counts (H,).
        failures: counts (H,).
        levels: (factors, H) the level of each stratum in each factor.
        wider: the same, of the wider levels.
    """
    overall = (failures.sum() + 0.5) / (rows.sum() + 1)
    prior = np.full(len(rows), overall)
    for level, wide in zip(levels, wider, strict=True):
        around = (np.bincount(wide, failures) + 0.5) / (np.bincount(wide, rows) + 1)
        of_level = np.zeros(level.max() + 1)
        of_level[level] = around[wide]
        seen = _updated(np.bincount(level, rows), np.bincount(level, failures), of_level)
        prior *= seen[level] / overall
    # with two factors the pair is the stratum itself
    for first, second in combinations(levels, 2) if len(levels) > 2 else ():
        pair = np.ravel_multi_index((first, second), (first.max() + 1, second.max() + 1))
        expected = np.bincount(pair, rows * np.minimum(prior, 0.9))
        ratio = (np.bincount(pair, failures) + PRIOR_FAILURES) / (expected + PRIOR_FAILURES)
        prior *= ratio[pair]
    return np.minimum(_updated(rows, failures, np.minimum(prior, 0.9)), 0.9)


def _updated(
    rows: NDArray, failures: NDArray, expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (
        expected * (failures + PRIOR_FAILURES) / (rows * expected + PRIOR_FAILURES)
    )
    return result


def spread(
    shares: NDArray[np.float64],
    failures: NDArray[np.float64],
    quiet: NDArray[np.float64],
    aim: str,
) -> NDArray[np.float64]:
    """Standard deviation s_h of what is to be estimated, in each stratum (H,), up to a factor.

    failure_rate: sqrt(p (1 - p)). detection_accuracy: of the share A of failures that are not quiet
    too, whose linearised variance is q A^2 + (p - q) (1 - A)^2; each variance in parts of that of a
    uniform sample, added, so that both rates gain.

    Args:
        shares: W_h.
        failures: p_h.
        quiet: q_h, rate of failures that a check could miss, at most p_h.
        aim: ``failure_rate`` or ``detection_accuracy``.

    Raises:
        ProgipError: another aim.
    """
    if aim not in AIMS:
        raise ProgipError(f"sampling.aim={aim!r} is not one of {', '.join(AIMS)}")
    square = failures * (1 - failures)
    if aim == "detection_accuracy":
        missed = min(float(shares @ quiet / (shares @ failures)), 0.99)
        seen = 1 - missed
        square = square + (quiet * seen**2 + (failures - quiet) * missed**2) / (seen * missed)
    result: NDArray[np.float64] = np.sqrt(square)
    return result


def neyman(
    shares: NDArray[np.float64], spreads: NDArray[np.float64], defensive: float
) -> NDArray[np.float64]:
    """Fraction of the runs for each stratum, (H,), sums to 1: a_h ~ W_h s_h (Neyman, JRSS 1934).

    The share `defensive` is allocated proportionally, so that no weight W_h / a_h exceeds
    1 / defensive, whatever a pilot said. shares: W_h (H,), positive, sum 1. spreads: s_h (H,).
    """
    best = shares * spreads
    result: NDArray[np.float64] = (1 - defensive) * best / best.sum() + defensive * shares
    return result
