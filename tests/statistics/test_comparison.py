import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test
from statsmodels.stats.proportion import proportions_ztest

from progip.errors import ProgipError
from progip.statistics import (
    compare_independent,
    compare_paired,
    compare_paired_weighted,
    comparison,
    mcnemar_p,
    paired_interval,
)
from progip.statistics.comparison import FLIPS

pairs = st.integers(0, 400)


@given(b=pairs, c=pairs)
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_p(b, c) == pytest.approx(expected)
    assert mcnemar_p(b, c) == mcnemar_p(c, b)


def test_paired_interval_of_the_literature() -> None:
    """Cavo et al. 2012, as in Fagerland, Lydersen and Laake's contingencytables (method 10)."""
    found = compare_paired(59, 6, 16, 80)
    assert found.estimate == pytest.approx(-0.0621, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    assert found.n == 161


@given(counts=st.tuples(pairs, pairs, pairs, pairs).filter(any))
def test_paired_interval_holds_the_difference_and_turns_with_it(counts: tuple) -> None:
    both, a, b, neither = counts
    found = compare_paired(both, a, b, neither)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high
    turned = compare_paired(both, b, a, neither)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    swapped = compare_paired(neither, b, a, both)  # count the opposite: detected for missed
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_paired_beats_independent_when_protections_agree() -> None:
    paired = compare_paired(9800, 100, 60, 40)
    apart = compare_independent(9900, 10_000, 9860, 10_000)
    assert paired.estimate == pytest.approx(apart.estimate)
    assert paired.significant()
    assert paired.p_value < apart.p_value


def test_publication_is_not_significant() -> None:
    """98.74 against 98.57 % of 10,127 failures: z = 1.04 (sheet 03)."""
    found = compare_independent(9999, 10_127, 9982, 10_127)
    z = abs(proportions_ztest([9999, 9982], [10_127, 10_127])[0])
    assert z == pytest.approx(1.04, abs=5e-3)
    assert found.estimate == pytest.approx(0.0017, abs=5e-5)
    assert found.low < 0 < found.high
    assert not found.significant()


def test_large_counts_do_not_overflow() -> None:
    found = compare_paired(10**7, 10**6, 10**6 + 5000, 10**7)
    assert found.low < found.estimate < found.high < 0


def test_no_spread_at_all() -> None:
    assert compare_independent(0, 5, 0, 9).p_value == 1
    assert compare_independent(5, 5, 9, 9).p_value == 1
    assert compare_paired(4, 0, 0, 0).p_value == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: compare_paired(0, 0, 0, 0), "no pair"),
        (lambda: compare_paired(1, -1, 0, 0), "negative"),
        (lambda: mcnemar_p(-1, 0), "negative"),
        (lambda: compare_paired(1, 1, 1, 1, 1.0), "confidence"),
        (lambda: compare_independent(1, 0, 1, 2), "1 events in 0"),
        (lambda: compare_independent(0, 0, 1, 2), "empty"),
    ],
)
def test_bad_input_is_named(call, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        call()


@pytest.mark.parametrize("pairs", [2, 9, 13, 14, 60, 701])
def test_sign_flips_are_those_of_scipy(pairs: int) -> None:
    generator = np.random.default_rng(pairs)
    weights = generator.choice([0.1, 0.3, 1 / 3, 1.7], pairs)  # of few strata: sums tie
    first = generator.random(pairs) < 0.55
    terms = np.where(first, weights, -weights)
    expected = permutation_test(
        (terms, np.zeros(pairs)),
        lambda x, y, axis: (x - y).sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        rng=np.random.default_rng(0),
    )
    # a concordant pair has a weight of its own, so that weights always differ
    a, b = np.append(first, True), np.append(~first, True)
    found = compare_paired_weighted(a, b, np.append(weights, 5))
    assert found.p_value == expected.pvalue
    limits = paired_interval(a, b, np.append(weights, 5))
    assert limits == (found.low, found.high)


def test_sign_flips_do_not_depend_on_what_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = np.random.default_rng(1).standard_normal(31)
    whole = comparison._flipped_sums(terms)
    monkeypatch.setattr(comparison, "_AT_ONCE", 31 * 1000 + 7)
    assert np.array_equal(comparison._flipped_sums(terms), whole)
