import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from progip.errors import ProgipError
from progip.statistics import proportion_interval, rate, rate_from_sums, weighted_rate

METHODS = {"wilson": "wilson", "clopper_pearson": "exact"}
counts = st.integers(0, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@given(pair=counts)
def test_equals_scipy(method: str, confidence: float, pair: tuple[int, int]) -> None:
    k, n = pair
    low, high = proportion_interval(k, n, confidence, method)
    if n == 0:
        assert (low, high) == (0, 1)
        return
    expected = binomtest(k, n).proportion_ci(confidence, METHODS[method])
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "wilson", "clopper_pearson"),
    [  # sheet 12
        (0, 100, (0, 0.0370), (0, 0.0362)),
        (0, 4096, (0, 0.00094), (0, 0.00090)),
        (43, 3000, (0.01066, 0.01925), (0.01039, 0.01926)),
        (4126, 4138, (0.99494, 0.99834), (0.99494, 0.99850)),
    ],
)
def test_published_vectors(
    k: int, n: int, wilson: tuple[float, float], clopper_pearson: tuple[float, float]
) -> None:
    assert proportion_interval(k, n) == pytest.approx(wilson, abs=6e-5)
    exact = proportion_interval(k, n, method="clopper_pearson")
    assert exact == pytest.approx(clopper_pearson, abs=6e-5)


@given(pair=counts, method=st.sampled_from(sorted(METHODS)))
def test_holds_the_share_and_has_width(pair: tuple[int, int], method: str) -> None:
    k, n = pair
    low, high = proportion_interval(k, n, method=method)
    assert 0 <= low < high <= 1
    if n:
        assert low <= k / n <= high
    if k == 0:
        assert low == 0
    if k == n:
        assert high == 1


@given(pair=counts, method=st.sampled_from(sorted(METHODS)))
def test_mirrored_by_counting_the_opposite(pair: tuple[int, int], method: str) -> None:
    k, n = pair
    low, high = proportion_interval(k, n, method=method)
    other = proportion_interval(n - k, n, method=method)
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_grows_with_k_and_is_vectorised(method: str) -> None:
    low, high = proportion_interval(np.arange(41), 40, method=method)
    assert low.shape == high.shape == (41,)
    assert (np.diff(low) > 0).all()
    assert (np.diff(high) > 0).all()
    assert (low[7], high[7]) == proportion_interval(7, 40, method=method)


@given(k=st.integers(0, 50))
def test_higher_confidence_is_wider(k: int) -> None:
    low, high = proportion_interval(k, 50, 0.9)
    wider_low, wider_high = proportion_interval(k, 50, 0.99)
    assert wider_low <= low
    assert wider_high >= high


@pytest.mark.parametrize(
    ("k", "n", "confidence", "method", "named"),
    [
        (-1, 5, 0.95, "wilson", "negative"),
        (6, 5, 0.95, "wilson", "6 events in 5"),
        (1.5, 5, 0.95, "wilson", "1.5"),
        (np.nan, 5, 0.95, "wilson", "nan"),
        ("3", 5, 0.95, "wilson", "'3'"),
        (1, 5, 0, "wilson", "confidence is 0"),
        (1, 5, 95, "wilson", "confidence is 95"),
        (1, 5, 0.95, "wald", "wald.*wilson, clopper_pearson"),
    ],
)
def test_bad_input_is_named(k, n, confidence, method, named) -> None:
    with pytest.raises(ProgipError, match=named):
        proportion_interval(k, n, confidence, method)


def test_rate_of_nothing_is_unknown() -> None:
    unknown = rate(0, 0)
    assert np.isnan(unknown.estimate)
    assert (unknown.low, unknown.high, unknown.n) == (0, 1, 0)


@given(
    events=st.lists(st.booleans(), min_size=1, max_size=60),
    weight=st.sampled_from([1.0, 0.25, 3.0, 1 / 3]),
)
def test_equal_weights_are_the_plain_interval(events: list[bool], weight: float) -> None:
    weighted = weighted_rate(events, [weight] * len(events))
    plain = rate(sum(events), len(events))
    assert (weighted.events, weighted.n) == (plain.events, plain.n)
    for name in ("estimate", "low", "high", "effective_n"):
        tolerance = 0 if weight == 1 else 1e-12
        assert getattr(weighted, name) == pytest.approx(getattr(plain, name), rel=tolerance)


def test_weighted_rate_by_hand() -> None:
    # weights 1, 1, 2, 4; events on the first and the third: p = 3/8
    found = weighted_rate([True, False, True, False], [1, 1, 2, 4])
    assert found.estimate == 3 / 8
    variance = (1 * (5 / 8) ** 2 + 1 * (3 / 8) ** 2 + 4 * (5 / 8) ** 2 + 16 * (3 / 8) ** 2) / 64
    assert found.effective_n == pytest.approx((3 / 8) * (5 / 8) / variance)
    n, k = found.effective_n, found.effective_n * 3 / 8
    z = 1.959963984540054
    centre, half = (k + z * z / 2) / (n + z * z), z / (1 + z * z / n)
    half *= np.sqrt((3 / 8) * (5 / 8) / n + z * z / (4 * n * n))
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_weighted_rate_without_an_event_uses_kish() -> None:
    found = weighted_rate([False] * 3, [1, 1, 4])
    assert found.effective_n == pytest.approx(36 / 18)
    assert found.estimate == found.low == 0
    assert found.high == pytest.approx(proportion_interval(0, 2)[1])
    sure = weighted_rate([True] * 3, [1, 1, 4])
    assert (sure.estimate, sure.high) == (1, 1)
    assert sure.low == pytest.approx(1 - found.high)


@given(
    rows=st.lists(st.tuples(st.booleans(), st.floats(0.01, 100)), min_size=1, max_size=40),
    scale=st.floats(0.01, 100),
)
def test_scale_of_weights_does_not_matter(rows: list[tuple[bool, float]], scale: float) -> None:
    events, weights = zip(*rows, strict=True)
    one = weighted_rate(events, weights)
    two = weighted_rate(events, np.array(weights) * scale)
    assert two.estimate == pytest.approx(one.estimate)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=1e-9)
    assert 0 <= one.low <= one.estimate <= one.high <= 1
    assert one.low < one.high


def test_weighted_intervals_cover() -> None:
    """Importance sampling of a rate of 2 %: 95 % intervals hold it in about 95 % of campaigns."""
    random = np.random.default_rng(0)
    truth = np.array([0.001, 0.077])  # of two strata, the second a quarter of the target
    held = 0
    for _ in range(1000):
        stratum = random.integers(0, 2, 2000)  # sampled half and half
        weight = np.array([0.75, 0.25])[stratum] / 0.5
        found = weighted_rate(random.random(2000) < truth[stratum], weight)
        held += found.low <= 0.02 <= found.high
    assert 0.93 <= held / 1000 <= 0.98


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, np.nan], [1, np.inf], [1], [[1, 1]]])
def test_bad_weights_are_named(weights) -> None:
    with pytest.raises(ProgipError, match="weight"):
        weighted_rate([True, False], weights)


def test_sums_of_nothing() -> None:
    found = rate_from_sums(
        n=0, events=0, weight=0, weight_squared=0, event_weight=0, event_weight_squared=0
    )
    assert (found.low, found.high) == (0, 1)
