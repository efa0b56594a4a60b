"""One-sided limits of rates: what a safety argument may assume of failures and of coverage."""

from scipy import stats

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence, proportion_interval, rate_from_sums


def upper_limit(k: int, n: int, confidence: float = 0.95) -> float:
    """The largest rate that k events in n trials leave credible (Clopper and Pearson 1934).

    One-sided: the ``confidence`` quantile of Beta(k + 1, n - k); 1 where k = n, n = 0 included.

    Raises:
        ProgipError: counts that cannot be, a confidence outside (0, 1).

    >>> round(upper_limit(0, 100), 4)  # the rule of three
    0.0295
    """
    proportion_interval(k, n)  # its checks
    check_confidence(confidence)
    return 1.0 if k == n else float(stats.beta.ppf(confidence, k + 1, n - k))


def lower_limit(k: int, n: int, confidence: float = 0.95) -> float:
    """The smallest rate that k events in n trials leave credible; see ``upper_limit``.

    >>> round(lower_limit(100, 100), 4)
    0.9705
    """
    return 1.0 - upper_limit(n - k, n, confidence)


def weighted_upper_limit(
    total: float, squares: float, largest: float, confidence: float = 0.95
) -> float:
    """Upper limit of a sum of weights over events, by the gamma distribution.

    Fay and Feuer, Statistics in Medicine 16 (1997), 791-801, for sums of weighted Poisson counts;
    binomial counts vary less. Unlike a normal limit it holds where strata of large weight show no
    event: without any event it is -ln(1 - confidence) times the largest weight.

    Args:
        total: sum of the weights of the events.
        squares: sum of their squares.
        largest: the largest weight that an event could have had.
        confidence: of the limit.

    Raises:
        ProgipError: negative sums, no positive largest weight, a confidence outside (0, 1).
    """
    _check(total, squares, confidence)
    if not largest > 0:
        raise ProgipError(f"the largest weight is {largest}; it must be above 0")
    mean, variance = total + largest, squares + largest**2
    return float(variance / (2 * mean) * stats.chi2.ppf(confidence, 2 * mean**2 / variance))


def weighted_lower_limit(total: float, squares: float, confidence: float = 0.95) -> float:
    """Lower limit of a sum of weights over events; 0 without one. As ``weighted_upper_limit``."""
    _check(total, squares, confidence)
    if not squares:
        return 0.0
    return float(squares / (2 * total) * stats.chi2.ppf(1 - confidence, 2 * total**2 / squares))


def weighted_coverage_limit(
    events: int,
    n: int,
    event_weight: float,
    event_weight_squared: float,
    weight: float,
    weight_squared: float,
    confidence: float = 0.95,
) -> float:
    """Lower limit of the share of weight that n failures, `events` of them noticed, leave credible.

    Clopper and Pearson's at the effective number of failures: Korn and Graubard's of
    ``rate_from_sums``, but never above Kish's, sum(w)^2 / sum(w^2), for a single heavy failure that
    was noticed has hardly a variance. Equal weights give ``lower_limit``.

    Args:
        events: failures that were noticed.
        n: failures.
        event_weight: sum of the weights of the noticed, and its squares.
        weight: sum of the weights of all, and its squares.
        confidence: of the limit.
    """
    check_confidence(confidence)
    if n == 0:
        return 0.0
    found = rate_from_sums(
        n=n,
        events=events,
        weight=weight,
        weight_squared=weight_squared,
        event_weight=event_weight,
        event_weight_squared=event_weight_squared,
    )
    size = min(found.effective_n, weight**2 / weight_squared)
    k = found.estimate * size
    return float(stats.beta.ppf(1 - confidence, k, size - k + 1)) if k > 0 else 0.0


def _check(total: float, squares: float, confidence: float) -> None:
    check_confidence(confidence)
    if total < 0 or squares < 0:
        raise ProgipError(f"negative sum of weights {total} or squares {squares}")
