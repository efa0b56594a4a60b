"""Medians of paired ratios: exact cases, closed forms, SciPy's bootstrap, coverage."""

import numpy as np
import pytest
from scipy import stats

from progip.errors import ProgipError
from progip.statistics import mean_of_median_ratios, median_difference, median_ratio


def noisy_pairs(ratio: float, n: int, seed: int, spread: float = 0.05) -> np.ndarray:
    """Both members slowed by the same strong drift, and by noise of their own."""
    random = np.random.default_rng(seed)
    drift = 1 + random.exponential(1.0, n)
    own = random.lognormal(0, spread, (n, 2))
    return np.stack([drift * own[:, 0], ratio * drift * own[:, 1]], 1)


def test_known_by_arithmetic() -> None:
    pairs = [[1.0, 1.1], [2.0, 2.4], [10.0, 13.0]]
    assert median_ratio(pairs).estimate == pytest.approx(1.2)
    assert median_ratio(pairs).n == 3
    assert median_difference(pairs).estimate == pytest.approx(0.4)
    both = mean_of_median_ratios([pairs, [[1.0, 2.0], [1.0, 2.0]]])
    assert both.estimate == pytest.approx((1.2 + 2.0) / 2)
    assert both.n == 5


def test_equal_pairs_leave_no_doubt() -> None:
    found = median_ratio([[2.0, 3.0]] * 10)
    assert found[:3] == (1.5, 1.5, 1.5)


def test_one_interrupted_measurement_moves_nothing() -> None:
    pairs = noisy_pairs(1.01, 101, 0)
    spoiled = pairs.copy()
    slowest = np.argmax(pairs[:, 1] / pairs[:, 0])
    spoiled[slowest, 1] *= 1000
    assert median_ratio(spoiled).estimate == median_ratio(pairs).estimate


def test_interval_near_that_of_order_statistics() -> None:
    """The distribution-free interval: order statistics at binomial quantiles."""
    pairs = noisy_pairs(1.02, 400, 1)
    ratios = np.sort(pairs[:, 1] / pairs[:, 0])
    low, high = (int(stats.binom.ppf(q, 400, 0.5)) for q in (0.025, 0.975))
    found = median_ratio(pairs)
    width = ratios[high] - ratios[low - 1]
    assert found.low == pytest.approx(ratios[low - 1], abs=0.15 * width)
    assert found.high == pytest.approx(ratios[high], abs=0.15 * width)


def test_interval_near_scipys_bootstrap() -> None:
    pairs = noisy_pairs(0.9, 200, 2)
    ratios = pairs[:, 1] / pairs[:, 0]
    reference = stats.bootstrap(
        (ratios,), np.median, method="percentile", rng=np.random.default_rng(5), n_resamples=4000
    ).confidence_interval
    found = median_ratio(pairs)
    width = reference.high - reference.low
    assert found.low == pytest.approx(reference.low, abs=0.1 * width)
    assert found.high == pytest.approx(reference.high, abs=0.1 * width)


def test_mean_over_groups_is_narrower_than_one_group() -> None:
    groups = [noisy_pairs(1.1, 200, seed) for seed in range(4)]
    one, four = median_ratio(groups[0]), mean_of_median_ratios(groups)
    assert (four.high - four.low) == pytest.approx((one.high - one.low) / 2, rel=0.3)


def test_covers_the_truth() -> None:
    inside = 0
    for seed in range(200):
        found = median_ratio(noisy_pairs(1.008, 60, seed))
        inside += found.low <= 1.008 <= found.high
    assert 180 <= inside <= 199  # 95 % of 200 is 190; binomial 99.9 % limits


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "give pairs"),
        ([[1.0, 2.0]], "n of at least 2"),
        ([[1.0, 2.0, 3.0]] * 3, "give pairs"),
        ([[1.0, 0.0], [1.0, 1.0]], "positive"),
        ([[1.0, np.nan], [1.0, 1.0]], "finite"),
    ],
)
def test_bad_pairs(pairs: list[list[float]], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        median_ratio(pairs)


def test_bad_confidence_and_no_group() -> None:
    with pytest.raises(ProgipError, match="confidence"):
        median_ratio([[1.0, 2.0]] * 3, confidence=1.0)
    with pytest.raises(ProgipError, match="group"):
        mean_of_median_ratios([])
