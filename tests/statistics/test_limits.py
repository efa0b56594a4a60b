import math

import numpy as np
import pytest
from scipy import stats

from progip.errors import ProgipError
from progip.statistics.limits import (
    lower_limit,
    upper_limit,
    weighted_coverage_limit,
    weighted_lower_limit,
    weighted_upper_limit,
)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 100), (3, 100), (57, 100), (100, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_one_rate_has_the_limits_of_clopper_and_pearson(k: int, n: int, confidence: float) -> None:
    found = stats.binomtest(k, n, alternative="less").proportion_ci(confidence, method="exact")
    assert upper_limit(k, n, confidence) == pytest.approx(found.high, rel=1e-9)
    found = stats.binomtest(k, n, alternative="greater").proportion_ci(confidence, method="exact")
    assert lower_limit(k, n, confidence) == pytest.approx(found.low, rel=1e-9, abs=1e-12)


def test_nothing_seen_says_nothing() -> None:
    assert upper_limit(0, 0) == 1
    assert lower_limit(0, 0) == 0
    assert weighted_coverage_limit(0, 0, 0, 0, 0, 0) == 0


@pytest.mark.parametrize("k", [0, 1, 7, 40])
def test_equal_weights_give_the_exact_limits_of_a_poisson_count(k: int) -> None:
    """Garwood, Biometrika 1936: the mean at which so few, or so many, have the error's chance."""
    high = weighted_upper_limit(k * 2.0, k * 4.0, 2.0, 0.95) / 2
    assert stats.poisson.cdf(k, high) == pytest.approx(0.05)
    if k:
        low = weighted_lower_limit(k * 2.0, k * 4.0, 0.95) / 2
        assert stats.poisson.sf(k - 1, low) == pytest.approx(0.05)
    else:
        assert weighted_lower_limit(0, 0) == 0


def test_a_heavy_stratum_without_an_event_is_not_forgotten() -> None:
    """10 runs without a failure in 90 % of the bits: a third of those may fail all the same."""
    light, heavy = 0.1 / 1000, 0.9 / 10
    high = weighted_upper_limit(10 * light, 10 * light**2, heavy)
    assert high > 0.9 * upper_limit(0, 10)
    assert weighted_upper_limit(0, 0, heavy) == pytest.approx(-math.log(0.05) * heavy)


def test_sums_over_strata_are_covered() -> None:
    """Three layers of unequal size and rate; the limit must hold in 95 of 100 campaigns."""
    random = np.random.default_rng(5)
    share, rate, n = np.array([0.7, 0.25, 0.05]), np.array([0.002, 0.01, 0.2]), [60, 200, 400]
    truth = float(share @ rate)
    unit = share / n
    k = random.binomial(n, rate, (4000, 3))
    high = [weighted_upper_limit(unit @ row, unit**2 @ row, unit.max()) for row in k]
    low = [weighted_lower_limit(unit @ row, unit**2 @ row) for row in k]
    assert np.mean(np.array(high) >= truth) > 0.945
    assert np.mean(np.array(low) <= truth) > 0.945


def test_coverage_of_equal_weights_is_exact_and_one_heavy_failure_is_one() -> None:
    for noticed in (0, 3, 10):
        exact = weighted_coverage_limit(noticed, 10, noticed * 0.5, noticed * 0.25, 5.0, 2.5)
        assert exact == pytest.approx(lower_limit(noticed, 10))
    # one failure of weight 100 that was noticed, 100 of weight .01 of which half were
    found = weighted_coverage_limit(51, 101, 100.5, 10000.005, 101.0, 10000.01)
    assert found < 0.06


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ProgipError, match="k may not exceed n"):
        upper_limit(3, 2)
    with pytest.raises(ProgipError, match="between 0 and 1"):
        weighted_upper_limit(1, 1, 1, 1.0)
    with pytest.raises(ProgipError, match="negative"):
        weighted_upper_limit(-1, 1, 1)
    with pytest.raises(ProgipError, match="largest weight"):
        weighted_upper_limit(0, 0, 0)
