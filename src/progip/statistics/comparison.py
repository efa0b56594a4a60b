"""Whether two protections differ: paired on the same faults, or from counts alone."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence, effective_interval, proportion_interval

#: sign flips of the randomisation test; p-values are multiples of 1 / (FLIPS + 1)
FLIPS = 9999
#: terms times flips that are in memory at once
_AT_ONCE = 1_000_000


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

    Source: McNemar, Psychometrika 1947; exact binomial form.

    Args:
        only_a: pairs in which the event happened to A alone.
        only_b: to B alone.

    Raises:
        ProgipError: a count is negative.

    >>> mcnemar_p(1, 9)
    0.021484375
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

    Raises:
        ProgipError: negative counts, no pairs, a confidence outside (0, 1).
    """
    check_confidence(confidence)
    _check(both, only_a, only_b, neither)
    n = both + only_a + only_b + neither
    if n == 0:
        raise ProgipError("there is no pair to compare; run both protections on the same faults")
    gap, low, high = _newcombe(both, only_a, only_b, neither, confidence)
    return Difference(gap, low, high, mcnemar_p(only_a, only_b), n)


def compare_paired_weighted(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike,
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> Difference:
    """`compare_paired` of pairs that carry weights; the same when all weights are equal.

    The difference is sum w (a - b) / sum w. Its interval is Newcombe's at the effective number of
    pairs, the one at which unweighted pairs with these shares would have the linearised variance of
    the difference (Kish's, where no pair is discordant). The test flips the sign of each discordant
    pair's weight: exact up to 13 of them, else with fixed random flips. `n` of the answer is the
    pairs.

    Args:
        a: what happened to A, booleans (pairs,).
        b: what happened to B.
        weights: (pairs,), above 0.
        clusters: (pairs,) label of each pair's cluster, such as its fault map, where pairs are not
            independent: variance and flips are then of whole clusters.

    Raises:
        ProgipError: no pair, weights not above 0, lengths that differ, a bad confidence.
    """
    pairs = _pairs(a, b, weights, clusters)
    low, high = _newcombe(*pairs.counts, confidence)[1:]
    if pairs.signed is None:
        p_value = mcnemar_p(int(pairs.counts[1]), int(pairs.counts[2]))
    else:
        p_value = _flip_p(pairs.signed)
    return Difference(pairs.difference, low, high, p_value, pairs.n)


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike,
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> tuple[float, float]:
    """The limits of `compare_paired_weighted` without its test, which takes nearly all its time.

    Arguments and errors as of that.
    """
    return _newcombe(*_pairs(a, b, weights, clusters).counts, confidence)[1:]


class _Pairs(NamedTuple):
    """What `compare_paired_weighted` rests on.

    Attributes:
        counts: pairs in which the event happened to both, to A alone, to B alone and to neither;
            effective ones where weights differ.
        difference: of the rates.
        signed: w (a - b) of each cluster; None where weights are equal.
        n: pairs.
    """

    counts: tuple[float, float, float, float]
    difference: float
    signed: NDArray[np.float64] | None
    n: int


def _pairs(a: ArrayLike, b: ArrayLike, weights: ArrayLike, clusters: ArrayLike | None) -> _Pairs:
    on_a, on_b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    w = np.asarray(weights, dtype=np.float64)
    if not on_a.shape == on_b.shape == w.shape or w.ndim != 1:
        raise ProgipError("give one weight a pair")
    if not len(w):
        raise ProgipError("there is no pair to compare; run both protections on the same faults")
    if not (np.isfinite(w).all() and (w > 0).all()):
        raise ProgipError("a weight is not a positive finite number; weights must be above 0")
    cells = on_a & on_b, on_a & ~on_b, ~on_a & on_b, ~on_a & ~on_b
    if clusters is None and (w == w[0]).all():
        both, only_a, only_b, neither = (int(cell.sum()) for cell in cells)
        gap = (both + only_a) / len(w) - (both + only_b) / len(w)
        return _Pairs((both, only_a, only_b, neither), gap, None, len(w))
    total = w.sum()
    gaps = on_a.astype(float) - on_b
    mean = float(w @ gaps / total)
    discordant = float(w @ np.abs(gaps) / total)
    _, index = np.unique(np.arange(len(w)) if clusters is None else clusters, return_inverse=True)
    variance = float((np.bincount(index, w * (gaps - mean)) ** 2).sum()) / total**2
    size = (discordant - mean**2) / variance if discordant and variance else 0.0
    size = size or float(total**2 / (np.bincount(index, w) ** 2).sum())
    shares = tuple(size * float(w[cell].sum() / total) for cell in cells)
    signed = np.bincount(index, w * gaps).astype(np.float64)
    return _Pairs((shares[0], shares[1], shares[2], shares[3]), mean, signed, len(w))


def _flip_p(signed: NDArray[np.float64]) -> float:
    """Two-sided p-value of a sum whose terms could as well have the other sign."""
    terms = signed[signed != 0]
    if len(terms) < 2:
        return 1.0
    sums = _flipped_sums(terms)
    drawn = int(len(sums) == FLIPS)  # the observed sum is one of the random ones, too
    observed = terms.sum()
    slack = 100 * np.finfo(np.float64).eps * abs(observed)  # sums that differ by rounding are equal
    fewer = min((sums <= observed + slack).sum(), (sums >= observed - slack).sum())
    return float(min(2 * ((fewer + drawn) / (len(sums) + drawn)), 1.0))


def _flipped_sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of terms (n,) under every choice of signs, or under FLIPS random ones.

    The random signs are those of ``scipy.stats.permutation_test`` with ``default_rng(0)``, which
    draws them by shuffling each pair of a term and its negative, far more slowly: one bit of the
    generator each, 1 to keep the sign.
    """
    n, columns = len(terms), terms[:, None]
    if n < FLIPS.bit_length():  # 2**n <= FLIPS
        kept = np.arange(2**n) >> np.arange(n)[:, None] & 1
        every: NDArray[np.float64] = np.where(kept, columns, -columns).sum(0)
        return every
    bits = np.random.PCG64(0)
    step = max(2, _AT_ONCE // n // 2 * 2)  # even: a number of the generator holds two bits
    found = []
    for start in range(0, FLIPS, step):
        count = min(step, FLIPS - start)
        drawn = bits.random_raw((count * n + 1) // 2).astype("<u8", copy=False).view("<u4")
        kept = np.ascontiguousarray((drawn[: count * n] & 1).astype(bool).reshape(count, n).T)
        found.append(np.where(kept, columns, -columns).sum(0))
    return np.concatenate(found)


def _newcombe(
    both: float, only_a: float, only_b: float, neither: float, confidence: float
) -> tuple[float, float, float]:
    """Difference, low, high of Newcombe's method 10 for pairs; counts may be effective ones."""
    n = both + only_a + only_b + neither
    hits = [both + only_a, both + only_b]
    rates = [hit / n for hit in hits]
    low, high = effective_interval(np.array(hits, dtype=float), float(n), confidence)
    below, above = rates - low, high - rates
    # plain numbers, not 64-bit: the product of four margins is too large for those
    spread = math.prod(hit * (n - hit) for hit in hits)
    tilt = float(both * neither - only_a * only_b)
    if tilt > 0:
        tilt = max(tilt - n / 2, 0.0)
    phi = tilt / math.sqrt(spread) if spread > 0 else 0.0
    down, up = (
        math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
        for a, b in ((below[0], above[1]), (above[0], below[1]))
    )
    gap = float(rates[0] - rates[1])
    return gap, max(-1.0, gap - down), min(1.0, gap + up)


def compare_independent(
    k_a: int, n_a: int, k_b: int, n_b: int, confidence: float = 0.95
) -> Difference:
    """Difference of two rates of separate samples: Newcombe's interval and the pooled z-test.

    k events in n of A and of B; for counts from print, where the pairs are gone. Interval: method
    10 of Newcombe (Statistics in Medicine 17, 1998, 873-890). `n` of the answer is the smaller.

    Raises:
        ProgipError: counts that cannot be, no trials, a confidence outside (0, 1).
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
