"""How many runs each stratum gets."""

import numpy as np
from numpy.typing import NDArray

from progip.errors import ProgipError

AIMS = ("failure_rate", "detection_accuracy")
#: prior rows a stratum is worth when its rate is drawn towards that of its bit and layer
PRIOR_ROWS = 4.0


def smoothed_rates(
    rows: NDArray, failures: NDArray, levels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Failure rate of every stratum from a small pilot, (H,), in (0, 1).

    Most strata have a handful of rows and no failure, so each is drawn towards the product of the
    rates of its levels, p prod(p_level / p), as an independence model has it; levels in turn
    towards the rate of all. A stratum nothing is known of gets its prior, never 0.

    rows, failures: counts (H,). levels: (factors, H) the level of each stratum in each factor.
    """
    overall = (failures.sum() + 0.5) / (rows.sum() + 1)
    prior = np.full(len(rows), overall)
    for level in levels:
        k = np.bincount(level, failures)
        n = np.bincount(level, rows)
        prior *= ((k + overall * 1.0) / (n + 1.0) / overall)[level]
    prior = np.minimum(prior, 0.9)
    rate: NDArray[np.float64] = (failures + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    return rate


def neyman(
    shares: NDArray[np.float64],
    rates: NDArray[np.float64],
    aim: str = "failure_rate",
    defensive: float = 0.1,
) -> NDArray[np.float64]:
    """Fraction of the runs for each stratum, (H,), sums to 1: a_h ~ W_h s_h (Neyman, JRSS 1934).

    s_h = sqrt(p (1 - p)) is best for the failure rate. For the share of failures that a protection
    detects s_h = sqrt(p): the best worst case while nobody knows which failures it misses. The
    share `defensive` is allocated proportionally, so that no weight W_h / a_h exceeds
    1 / defensive whatever the pilot said.

    shares: W_h (H,), positive, sum 1. rates: p_h (H,). Raises ProgipError for another aim.
    """
    if aim not in AIMS:
        raise ProgipError(f"sampling.aim={aim!r} is not one of {', '.join(AIMS)}")
    spread = np.sqrt(rates * (1 - rates) if aim == "failure_rate" else rates)
    best = shares * spread
    result: NDArray[np.float64] = (1 - defensive) * best / best.sum() + defensive * shares
    return result
