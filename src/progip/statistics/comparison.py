"""Whether two protections differ: paired on the same faults, or from counts alone."""

import math
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence, proportion_interval


@dataclass(frozen=True)
class Difference:
    """Rate of A less rate of B, with its interval (fractions of 1) and two-sided p-value."""

    estimate: float
    low: float
    high: float
    p_value: float
    n: int

    def significant(self, level: float = 0.05) -> bool:
        """Whether the p-value lies below the level."""
        return self.p_value < level


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p-value from the discordant pairs; 1 when there are none.

    only_a, only_b: pairs in which the event happened to A alone, to B alone (McNemar,
    Psychometrika 1947; exact binomial form). Raises ProgipError for negative counts.
    """
    _check(only_a, only_b)
    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def compare_paired(
    both: int, only_a: int, only_b: int, neither: int, confidence: float = 0.95
) -> Difference:
    """Difference of two rates over the same pairs, with Newcombe's paired interval and McNemar.

    The four counts sort the pairs by what happened to A and to B. The interval is method 10 of
    Newcombe (Statistics in Medicine 17, 1998, 2635-2650): Wilson limits of both rates, joined with
    their correlation phi, whose numerator is drawn towards 0 by n/2. The test is the exact
    McNemar; the two can disagree at the edge of significance.

    Raises ProgipError for negative counts, for no pairs, for a confidence outside (0, 1).
    """
    check_confidence(confidence)
    _check(both, only_a, only_b, neither)
    n = both + only_a + only_b + neither
    if n == 0:
        raise ProgipError("there is no pair to compare; run both protections on the same faults")
    hits = np.array([both + only_a, both + only_b])
    rates = hits / n
    low, high = proportion_interval(hits, n, confidence)
    below, above = rates - low, high - rates
    # Python integers: the product of four margins exceeds 64 bits at ordinary sizes
    spread = math.prod(int(h) * (n - int(h)) for h in hits)
    tilt = float(both * neither - only_a * only_b)
    if tilt > 0:
        tilt = max(tilt - n / 2, 0.0)
    phi = tilt / math.sqrt(spread) if spread else 0.0
    down, up = (
        math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
        for a, b in ((below[0], above[1]), (above[0], below[1]))
    )
    gap = float(rates[0] - rates[1])
    return Difference(gap, max(-1.0, gap - down), min(1.0, gap + up), mcnemar_p(only_a, only_b), n)


def compare_independent(
    k_a: int, n_a: int, k_b: int, n_b: int, confidence: float = 0.95
) -> Difference:
    """Difference of two rates of separate samples: Newcombe's interval and the pooled z-test.

    k events in n of A and of B; for counts from print, where the pairs are gone. Interval: method
    10 of Newcombe (Statistics in Medicine 17, 1998, 873-890). `n` of the answer is the smaller.
    Raises ProgipError for counts that cannot be, for no trials, for a confidence outside (0, 1).
    """
    proportion_interval([k_a, k_b], [n_a, n_b], confidence)  # its checks
    if not n_a or not n_b:
        raise ProgipError("one of the two samples is empty; there is nothing to compare")
    gap = k_a / n_a - k_b / n_b
    low, high = confint_proportions_2indep(
        k_a, n_a, k_b, n_b, compare="diff", method="newcomb", alpha=1 - confidence
    )
    same = k_a + k_b in (0, n_a + n_b)  # no spread at all: the z-statistic would be 0 / 0
    p_value = 1.0 if same else float(proportions_ztest([k_a, k_b], [n_a, n_b])[1])
    return Difference(gap, float(low), float(high), p_value, min(n_a, n_b))


def _check(*counts: int) -> None:
    if min(counts) < 0:
        raise ProgipError(f"negative count among {counts}; give numbers of pairs")
