import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import samplesize_confint_proportion

from progip.errors import ProgipError
from progip.statistics import margin_of, sample_size


@pytest.mark.parametrize(
    ("population", "sizes"),
    [  # sheet 12, at 99 % with the rounded cut-off, p = .5
        (10**4, (623, 6_240, 9_941)),
        (10**6, (664, 16_319, 623_912)),
        (10**9, (664, 16_590, 1_656_197)),
    ],
)
def test_published_sizes(population: int, sizes: tuple[int, ...]) -> None:
    found = [sample_size(e, population=population, t=2.576) for e in (0.05, 0.01, 0.001)]
    assert tuple(found) == sizes


def test_published_margins() -> None:
    assert margin_of(4096, t=2.576) == pytest.approx(0.0201, abs=5e-5)
    assert sample_size(0.0023, t=2.576) == pytest.approx(313_600, rel=2e-4)
    assert margin_of(100_000, confidence=0.99) == pytest.approx(0.0041, abs=5e-5)
    assert margin_of(100_000, confidence=0.99, rate=0.005) == pytest.approx(0.00057, abs=5e-6)
    assert margin_of(3_000, confidence=0.99) == pytest.approx(0.0235, abs=5e-5)


@given(margin=st.floats(0.001, 0.3), rate=st.floats(0.01, 0.99), confidence=st.floats(0.5, 0.999))
def test_endless_population_equals_statsmodels(
    margin: float, rate: float, confidence: float
) -> None:
    expected = samplesize_confint_proportion(rate, margin, alpha=1 - confidence)
    assert sample_size(margin, confidence=confidence, rate=rate) == max(1, math.ceil(expected))


@given(
    margin=st.floats(0.001, 0.5),
    rate=st.floats(0.01, 0.99),
    population=st.one_of(st.none(), st.integers(1, 10**9)),
)
def test_the_size_is_the_least_that_reaches_the_margin(
    margin: float, rate: float, population: int | None
) -> None:
    n = sample_size(margin, rate=rate, population=population)
    assert margin_of(n, rate=rate, population=population) <= margin * (1 + 1e-9)
    if n > 1:
        assert margin_of(n - 1, rate=rate, population=population) > margin * (1 - 1e-9)
    assert population is None or n <= population


def test_whole_population_has_no_margin() -> None:
    assert margin_of(500, population=500) == 0
    assert margin_of(1, population=1) == 0
    assert sample_size(0.01, population=1) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"margin": 0}, "margin is 0"),
        ({"margin": 1.5}, "margin is 1.5"),
        ({"margin": math.nan}, "margin is nan"),
        ({"margin": 0.1, "confidence": 1}, "confidence is 1"),
        ({"margin": 0.1, "rate": 0}, "rate is 0"),
        ({"margin": 0.1, "population": 0}, "0 faults"),
        ({"margin": 0.1, "t": -1}, "t is -1"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        sample_size(**arguments)


@pytest.mark.parametrize(("n", "named"), [(0, "0 runs"), (11, "population of 10")])
def test_bad_runs_are_named(n: int, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        margin_of(n, population=10)
