"""Rates of runs that share fault maps: closed forms, and coverage by simulation."""

import numpy as np
import pytest

from progip.statistics.clustered_sums import ClusteredSums
from progip.statistics.comparison import compare_paired_weighted
from progip.statistics.strata import StratifiedSums

BAD, ALL = np.array([False, True]), np.array([True, True])


def test_clusters_of_one_row_are_rows() -> None:
    draw = np.random.default_rng(0)
    shares, allocation = [0.2, 0.3, 0.5], [0.5, 0.25, 0.25]
    stratum, category = draw.integers(3, size=400), draw.integers(2, size=400)
    rows, clusters = StratifiedSums(shares, allocation, 2), ClusteredSums(shares, allocation, 2)
    rows.add(stratum, category, np.ones(400))
    clusters.add_clusters(stratum, category, np.ones(400), np.arange(400))
    one, other = rows.moments(), clusters.moments()
    np.testing.assert_allclose(one.total, other.total)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-12)
    assert one.rate(BAD, ALL).low == pytest.approx(other.rate(BAD, ALL).low)


def test_the_variance_is_that_of_map_means() -> None:
    draw = np.random.default_rng(1)
    share = draw.random(30)
    failed = draw.random((30, 50)) < share[:, None]
    sums = ClusteredSums([1.0], [1.0], 2)
    for part in (slice(0, 13), slice(13, 30)):  # as shards come
        maps = np.repeat(np.arange(30)[part], 50)
        sums.add_clusters(np.zeros(len(maps)), failed[part].ravel(), np.ones(len(maps)), maps)
    moments = sums.moments()
    means = failed.mean(1)
    variance = moments.covariance[1, 1] / moments.total.sum() ** 2
    assert variance == pytest.approx(means.var(ddof=1) / 30)
    rate = moments.rate(BAD, ALL)
    assert rate.estimate == pytest.approx(means.mean())
    assert rate.n == 1500
    assert rate.effective_n < 100


def test_maps_that_agree_are_one_piece_of_evidence_each() -> None:
    sums = ClusteredSums([1.0], [1.0], 2)
    maps = np.repeat(np.arange(4), 1000)
    sums.add_clusters(np.zeros(4000), np.zeros(4000), np.ones(4000), maps)
    rate = sums.moments().rate(BAD, ALL)
    assert rate.high > 0.3  # no failure in 4 maps, not in 4,000 independent runs


def test_coverage() -> None:
    """Maps fail nearly whole or not at all: rows alone would cover a third of the time."""
    draw = np.random.default_rng(2)
    inside = {ClusteredSums: 0, StratifiedSums: 0}
    for _ in range(400):
        chance = draw.beta(0.08, 0.32, size=80)  # mean 0.2
        failed = draw.random((80, 40)) < chance[:, None]
        maps = np.repeat(np.arange(80), 40)
        for kind in inside:
            sums = kind([1.0], [1.0], 2)
            part = np.zeros(3200), failed.ravel(), np.ones(3200)
            if isinstance(sums, ClusteredSums):
                sums.add_clusters(*part, maps)
            else:
                sums.add(*part)
            rate = sums.moments().rate(BAD, ALL)
            inside[kind] += rate.low <= 0.2 <= rate.high
    assert inside[ClusteredSums] >= 0.92 * 400
    assert inside[StratifiedSums] < 0.6 * 400


def test_pairs_of_one_map_are_no_independent_pairs() -> None:
    a = np.repeat([True, True, False, True], 50)
    b = np.repeat([False, True, False, False], 50)
    maps = np.repeat(np.arange(4), 50)
    apart = compare_paired_weighted(a, b, np.ones(200))
    together = compare_paired_weighted(a, b, np.ones(200), clusters=maps)
    assert together.estimate == apart.estimate == 0.5
    assert apart.p_value < 1e-6
    assert together.p_value == 0.5  # of two discordant maps, both one way: 2 of 4 signs
    assert together.high - together.low > 2 * (apart.high - apart.low)
