import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from progip.errors import ProgipError
from progip.statistics import auroc, auroc_interval, fpr_at_tpr, threshold_at_tpr

# a few values over and over give ties; the rest are any floats at all
scores = st.lists(
    st.one_of(
        st.sampled_from([0.1, 0.1002, 0.5, 1.0, -120.0]),
        st.floats(allow_infinity=True, allow_nan=True),
    ),
    min_size=1,
    max_size=30,
)
numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


def ranked(values: list[float]) -> list[float]:
    return [-math.inf if math.isnan(value) else value for value in values]


@given(id_scores=scores, ood_scores=scores)
def test_auroc_counts_pairs(id_scores: list[float], ood_scores: list[float]) -> None:
    won = sum((a > b) + (a == b) / 2 for a in ranked(id_scores) for b in ranked(ood_scores))
    pairs = len(id_scores) * len(ood_scores)
    assert auroc(id_scores, ood_scores) == pytest.approx(won / pairs)


def test_auroc_equals_scikit_learn_on_ordinary_scores() -> None:
    random = np.random.default_rng(0)
    id_, ood = random.normal(1, 1, 400), random.normal(0, 1, 300)
    expected = roc_auc_score([1] * 400 + [0] * 300, np.concatenate([id_, ood]))
    assert auroc(id_, ood) == pytest.approx(expected, abs=1e-12)


def test_auroc_keeps_the_resolution_of_float64() -> None:
    id_ = 0.1 + np.arange(1, 4) * 1e-15
    assert auroc(id_, [0.1, 0.1]) == 1


def test_nan_scores_are_never_accepted() -> None:
    assert auroc([math.nan, 2], [1]) == 0.5
    assert auroc([2, 2], [math.nan, 3]) == 0.5
    assert fpr_at_tpr([1, 2, 3], [math.nan, 5]) == 0.5


@given(values=numbers, tpr=st.floats(0.01, 1))
def test_threshold_is_the_largest_that_accepts_enough(values: list[float], tpr: float) -> None:
    threshold = threshold_at_tpr(values, tpr)
    array = np.array(values)
    assert (array > threshold).mean() >= tpr
    above = np.nextafter(threshold, np.inf)
    assert (array > above).mean() < tpr


@pytest.mark.parametrize("tpr", [0.07, 0.29, 0.57, 0.95])
def test_threshold_counts_exactly(tpr: float) -> None:
    """.07 * 100 is a little more than 7 in binary: still 7 of 100 images, not 8."""
    threshold = threshold_at_tpr(np.arange(100.0), tpr)
    assert (np.arange(100.0) > threshold).sum() == round(100 * tpr)


def test_threshold_keeps_ties_together() -> None:
    values = [1.0] * 10 + [2.0] * 10
    threshold = threshold_at_tpr(values, 0.95)
    assert threshold == np.nextafter(1.0, 0)
    assert fpr_at_tpr(values, [1.0, 0.5], 0.95) == 0.5


def test_threshold_counts_nan_as_refused() -> None:
    values = [math.nan, *range(1, 20)]
    assert threshold_at_tpr(values, 0.95) == np.nextafter(1.0, 0)
    with pytest.raises(ProgipError, match="only 19 of 20 ID scores are numbers"):
        threshold_at_tpr(values, 1)


@pytest.mark.parametrize("tpr", [0, -0.1, 1.1, math.nan])
def test_bad_tpr_is_named(tpr: float) -> None:
    with pytest.raises(ProgipError, match="true-positive rate is"):
        threshold_at_tpr([1.0], tpr)


def test_empty_populations_are_named() -> None:
    with pytest.raises(ProgipError, match="ID population is empty"):
        auroc([], [1.0])
    with pytest.raises(ProgipError, match="OOD population is empty"):
        auroc([1.0], [])
    with pytest.raises(ProgipError, match="OOD population is empty"):
        fpr_at_tpr([1.0], [])


@given(area=st.floats(0, 1), n=st.integers(1, 5000), m=st.integers(1, 5000))
def test_auroc_interval_holds_the_area(area: float, n: int, m: int) -> None:
    low, high = auroc_interval(area, n, m)
    assert 0 <= low <= area <= high <= 1
    assert high - low > 1e-9
    mirrored = auroc_interval(1 - area, n, m)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_auroc_interval_is_t_standard_errors_of_hanley_and_mcneil() -> None:
    n = 60  # of each population: then Newcombe's variance is Hanley and McNeil's own
    for limit in auroc_interval(0.9, n, n):
        q1, q2 = limit / (2 - limit), 2 * limit**2 / (1 + limit)
        variance = limit * (1 - limit) + (n - 1) * (q1 + q2 - 2 * limit**2)
        z = (0.9 - limit) / math.sqrt(variance / (n * n))
        assert abs(z) == pytest.approx(1.959964)


def test_auroc_intervals_cover() -> None:
    random = np.random.default_rng(0)
    held, truth = 0, norm.cdf(1.5 / math.sqrt(2))
    for _ in range(500):
        area = auroc(random.normal(1.5, 1, 100), random.normal(0, 1, 60))
        low, high = auroc_interval(area, 100, 60)
        held += low <= truth <= high
    assert 0.93 <= held / 500 <= 0.99


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1.1, 5, 5), "AUROC is 1.1"),
        ((math.nan, 5, 5), "AUROC is nan"),
        ((0.9, 0, 5), "0 ID"),
        ((0.9, 5, 5, 2), "confidence is 2"),
    ],
)
def test_bad_interval_input_is_named(arguments: tuple, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        auroc_interval(*arguments)
