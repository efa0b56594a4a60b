"""Stratified rates against the textbook formulas, and the weighted ones without strata."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from progip.errors import ProgipError
from progip.statistics import (
    StratifiedSums,
    cluster_bootstrap,
    compare_paired,
    compare_paired_weighted,
    effective_size_warning,
    proportion_interval,
    rate,
    weighted_rate,
)
from progip.statistics.allocation import neyman, smoothed_rates, spread
from progip.statistics.intervals import effective_interval

EVENT = np.array([False, True])
ALL = np.array([True, True])


def filled(shares, allocation, hits, rows) -> StratifiedSums:
    sums = StratifiedSums(shares, allocation, 2)
    for h, (k, n) in enumerate(zip(hits, rows, strict=True)):
        sums.add(np.full(n, h), np.arange(n) < k, np.ones(n))
    return sums


def test_textbook_stratified_proportion() -> None:
    """Cochran 5.6: p = sum W p_h, variance sum W^2 p_h (1 - p_h) / (n_h - 1)."""
    shares, rows, hits = np.array([0.5, 0.3, 0.2]), [200, 300, 500], [2, 60, 250]
    found = filled(shares, np.array(rows) / 1000, hits, rows).moments().rate(EVENT, ALL)
    p = np.array(hits) / rows
    assert found.estimate == pytest.approx(shares @ p)
    variance = (shares**2 * p * (1 - p) / (np.array(rows) - 1)).sum()
    assert found.effective_n == pytest.approx(
        found.estimate * (1 - found.estimate) / variance, rel=0.05
    )
    assert (found.events, found.n) == (312, 1000)
    low, high = effective_interval(np.array(found.estimate * found.effective_n), found.effective_n)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))


def test_without_strata_it_is_the_weighted_rate() -> None:
    generator = np.random.default_rng(0)
    happened, weight = generator.random(400) < 0.1, generator.uniform(0.2, 3, 400)
    sums = StratifiedSums([1.0], [1.0], 2)
    sums.add(np.zeros(400), happened, weight)
    found, expected = sums.moments().rate(EVENT, ALL), weighted_rate(happened, weight)
    assert astuple(found) == pytest.approx(astuple(expected))
    plain = StratifiedSums([1.0], [1.0], 2)
    plain.add(np.zeros(400), happened, np.ones(400))
    assert plain.moments().rate(EVENT, ALL) == rate(int(happened.sum()), 400)


def test_zero_events_have_width() -> None:
    found = filled([0.5, 0.5], [0.2, 0.8], [0, 0], [200, 800]).moments().rate(EVENT, ALL)
    assert (found.estimate, found.low) == (0, 0)
    assert 0.0038 < found.high < 0.01
    every = filled([0.5, 0.5], [0.2, 0.8], [200, 800], [200, 800]).moments().rate(EVENT, ALL)
    assert every.low < every.high == 1


def test_small_strata_are_taken_together() -> None:
    strata = 400  # 2 rows each: no variance of their own
    rows = np.full(strata, 2)
    hits = (np.arange(strata) % 40 == 0).astype(int)
    share = np.full(strata, 1 / strata)
    found = filled(share, share, hits, rows).moments().rate(EVENT, ALL)
    assert found.estimate == pytest.approx(10 / 800)
    assert found.effective_n == pytest.approx(800, rel=0.5)


def test_strata_without_rows_do_not_bias_the_rest() -> None:
    shares = np.array([0.4, 0.4, *np.full(20, 0.01)])
    allocation = np.array([0.78, 0.2, *np.full(20, 0.001)])
    rows = [780, 200, *([1] * 10), *([0] * 10)]
    hits = [390, 0, *([0] * 20)]
    found = filled(shares, allocation, hits, rows).moments().rate(EVENT, ALL)
    assert found.estimate == pytest.approx(0.2, rel=0.02)


def test_moments_of_two_samples_add_up() -> None:
    one = filled([0.5, 0.5], [0.5, 0.5], [5, 50], [100, 100]).moments()
    both = (one + one).rate(EVENT, ALL)
    single = one.rate(EVENT, ALL)
    assert both.estimate == pytest.approx(single.estimate)
    assert both.effective_n == pytest.approx(2 * single.effective_n, rel=0.05)
    scaled = one.scaled(3.0).rate(EVENT, ALL)
    assert (scaled.estimate, scaled.low) == pytest.approx((single.estimate, single.low))
    assert one.merged([0, 0]).total.tolist() == pytest.approx([200, 0])


def test_cluster_bootstrap_sees_dependence() -> None:
    generator = np.random.default_rng(3)
    image = np.repeat(np.arange(60), 10)
    alike = np.repeat(generator.random(60) < 0.3, 10)
    apart = generator.random(600) < 0.3
    ones = np.ones(600)
    dependent, independent = (cluster_bootstrap(e, ones, image) for e in (alike, apart))
    assert dependent.design_effect == pytest.approx(10, rel=0.25)
    assert independent.design_effect == pytest.approx(1, rel=0.4)
    wilson = proportion_interval(int(apart.sum()), 600)
    assert (independent.low, independent.high) == pytest.approx(
        tuple(float(x) for x in wilson), abs=0.025
    )
    none = cluster_bootstrap(np.zeros(600, bool), ones, image)
    assert (none.estimate, none.low) == (0, 0)
    assert none.high == pytest.approx(float(proportion_interval(0, 60)[1]))
    assert cluster_bootstrap(alike, ones, image) == dependent


def test_weighted_pairs() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.random(500) < 0.95, generator.random(500) < 0.7
    counts = [int((x & y).sum()) for x, y in ((a, b), (a, ~b), (~a, b), (~a, ~b))]
    assert compare_paired_weighted(a, b, np.full(500, 2.5)) == compare_paired(*counts)
    w = generator.uniform(0.2, 3, 500)
    found = compare_paired_weighted(a, b, w)
    assert found.estimate == pytest.approx(float(w @ (a.astype(float) - b) / w.sum()))
    assert found.low < found.estimate < found.high
    assert found.significant()
    turned = compare_paired_weighted(b, a, w)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    same = compare_paired_weighted(a, a, w)
    assert (same.estimate, same.p_value) == (0, 1)
    assert same.low < 0 < same.high


def test_sign_flips_are_exact_for_few_pairs() -> None:
    a = np.array([True] * 8 + [False] * 2)
    w = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1.0001])
    p = compare_paired_weighted(a, ~a, w).p_value
    assert p == pytest.approx(compare_paired(0, 8, 2, 0).p_value, abs=0.01)


def test_poor_weights_are_named() -> None:
    assert effective_size_warning(100, 100, 100, 1) == ""
    assert "worth 5 " in effective_size_warning(100, 50, 500, 2)
    assert "7 % of all weight" in effective_size_warning(100, 100, 180, 7)
    assert effective_size_warning(0, 0, 0, 0) == ""


def test_smoothing_never_says_never() -> None:
    rows, failures = np.array([10, 10, 0, 10]), np.array([5, 0, 0, 0])
    levels = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    rates = smoothed_rates(rows, failures, levels, np.zeros_like(levels))
    assert (rates > 0).all()
    assert (rates < 1).all()
    assert rates[0] == rates.max()
    assert rates[3] == rates.min()


def test_levels_that_meet_tell_more_than_each_alone() -> None:
    """A change that is harmless elsewhere matters in one layer; one stratum there has no row."""
    levels = np.indices((8, 5, 6)).reshape(3, -1)
    here = (levels[0] == 3) & (levels[1] == 1)
    rows, failures = np.full(240, 40), np.where(here, 20, 1)
    blank = np.flatnonzero(here)[0]
    rows[blank] = failures[blank] = 0
    rates = smoothed_rates(rows, failures, levels, np.zeros_like(levels))
    assert rates[here].min() > 0.2
    assert rates[~here].max() < 0.1


def test_neyman_is_best() -> None:
    shares, p = np.array([0.6, 0.4]), np.array([0.01, 0.3])
    s = spread(shares, p, p / 2, "failure_rate")
    assert s == pytest.approx(np.sqrt(p * (1 - p)))
    a = neyman(shares, s, 1e-9)

    def variance(part: float) -> float:
        return float((shares**2 * s**2 / np.array([part, 1 - part])).sum())

    assert variance(a[0]) <= min(variance(a[0] + d) for d in (-0.01, 0.01))
    assert (spread(shares, p, p / 2, "detection_accuracy") > s).all()
    with pytest.raises(ProgipError, match="aim"):
        spread(shares, p, p, "both")


@pytest.mark.parametrize(
    "call",
    [
        lambda: StratifiedSums([0.5, 0.6], [0.5, 0.5], 2),
        lambda: StratifiedSums([1.0, 0.0], [0.5, 0.5], 2),
        lambda: StratifiedSums([0.5, 0.5], [1.0], 2),
        lambda: filled([0.5, 0.5], [0.5, 0.5], [1, 1, 1], [2, 2, 2]),
        lambda: filled([1.0], [1.0], [1], [2]).moments().rate(ALL, EVENT),
        lambda: cluster_bootstrap([True], [1.0], [1]),
        lambda: cluster_bootstrap([], [], []),
        lambda: cluster_bootstrap([True, False], [1.0], [1, 2]),
        lambda: compare_paired_weighted([True], [True], [0.0]),
        lambda: compare_paired_weighted([], [], []),
        lambda: compare_paired_weighted([True], [True, False], [1.0]),
        lambda: compare_paired_weighted([True], [True], [1.0], 1.0),
    ],
)
def test_bad_input_is_refused(call) -> None:
    with pytest.raises(ProgipError):
        call()


def test_clopper_pearson_on_request() -> None:
    sums = filled([0.5, 0.5], [0.3, 0.7], [3, 7], [300, 700]).moments()
    wilson, exact = (sums.rate(EVENT, ALL, 0.95, m) for m in ("wilson", "clopper_pearson"))
    assert exact.high > wilson.high - 1e-4
    assert math.isclose(exact.estimate, wilson.estimate)
    with pytest.raises(ProgipError, match="unknown interval method"):
        sums.rate(EVENT, ALL, 0.95, "wald")
