"""Stopping rules and the sequential statistics under them."""

import numpy as np
import pytest
from scipy.stats import norm

from progip.errors import ProgipError
from progip.statistics import rate
from progip.statistics.sequential import boundary, mixture_interval, obrien_fleming
from progip.stopping.alpha_spending import AlphaSpending
from progip.stopping.confidence_sequence import ConfidenceSequence
from progip.stopping.none import NoStopping

RULES = [AlphaSpending, ConfidenceSequence]


def test_critical_values_of_the_literature() -> None:
    """Five equal looks at .05: the O'Brien-Fleming-type bounds of Lan and DeMets, and Pocock's."""
    times = [0.2, 0.4, 0.6, 0.8, 1.0]
    spent: list[float] = []
    found = []
    for k, t in enumerate(times):
        # the two one-sided functions of the paper's table
        due = 4 * norm.sf(norm.isf(0.05 / 4) / np.sqrt(t)) - sum(spent)
        found.append(boundary(times[: k + 1], spent, due))
        spent.append(due)
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=0.01)
    pocock = 2.413
    chances = []
    for k in range(5):  # the error Pocock's constant leaves at each look adds up to .05
        low, high = 1e-9, 0.049
        for _ in range(40):
            middle = (low + high) / 2
            z = boundary(times[: k + 1], chances, middle)
            low, high = (middle, high) if z > pocock else (low, middle)
        chances.append(low)
    assert sum(chances) == pytest.approx(0.05, abs=5e-4)


def test_all_is_spent_at_full_information() -> None:
    assert obrien_fleming(1.0, 0.05) == pytest.approx(0.05)
    assert obrien_fleming(0.25, 0.05) < 1e-4


def test_confidence_sequence_holds_the_truth_at_all_sizes_at_once() -> None:
    generator = np.random.default_rng(1)
    misses = 0
    for _ in range(300):
        k = np.cumsum(generator.random(2000) < 0.05)
        sizes = range(20, 2001, 60)
        limits = [mixture_interval(float(k[n - 1]), float(n)) for n in sizes]
        misses += any(not low <= 0.05 <= high for low, high in limits)
    assert misses / 300 < 0.07


def test_confidence_sequence_has_width() -> None:
    assert mixture_interval(0, 0) == (0, 1)
    low, high = mixture_interval(0, 100)
    assert (low, round(high, 3)) == (0, 0.057)
    low, high = mixture_interval(100, 100)
    assert (round(low, 3), high) == (0.943, 1)


@pytest.mark.parametrize("kind", RULES)
def test_stops_at_the_first_look_that_is_narrow_enough(kind) -> None:
    rule = kind(name="s", margin=0.02, first=500, growth=1.5)
    looks = rule.looks(20_000)
    assert looks[0] == 500
    assert looks[-1] == 20_000
    assert looks == sorted(set(looks))
    estimates = [(n, lambda c, n=n: rate(n // 10, n, c)) for n in looks]
    stop = rule.judge(estimates)
    assert stop.enough
    assert stop.half_width <= 0.02
    assert stop.rate.low < 0.1 < stop.rate.high
    before = rule.judge(estimates[: looks.index(stop.runs)])
    assert not before.enough
    assert before.half_width > 0.02
    # a plain interval of that width is reached a little earlier, never later
    plain = next(n for n, e in estimates if (e(0.95).high - e(0.95).low) / 2 <= 0.02)
    assert plain <= stop.runs


def test_alpha_spending_costs_little_and_the_sequence_more() -> None:
    looks = AlphaSpending(name="a", first=500, growth=1.1).looks(50_000)
    estimates = [(n, lambda c, n=n: rate(n // 10, n, c)) for n in looks]
    a, b = (
        kind(name="s", margin=0.01, first=500, growth=1.1).judge(estimates).runs for kind in RULES
    )
    plain = next(n for n, e in estimates if (e(0.95).high - e(0.95).low) / 2 <= 0.01)
    assert plain <= a <= 1.35 * plain
    assert a < b


@pytest.mark.parametrize("kind", RULES)
def test_few_events_do_not_stop_and_the_cap_is_said(kind) -> None:
    rule = kind(name="s", margin=0.5, first=100, growth=2, events=20)
    look = rule.judge([(n, lambda c, n=n: rate(3, n, c)) for n in rule.looks(400)])
    assert not look.enough
    assert look.runs == 400


def test_relative_margin() -> None:
    rule = AlphaSpending(name="s", margin=0.2, relative=True, first=1000, growth=1.5)
    stop = rule.judge([(n, lambda c, n=n: rate(n // 100, n, c)) for n in rule.looks(100_000)])
    assert stop.enough
    assert (stop.rate.high - stop.rate.low) / 2 <= 0.2 * stop.rate.estimate
    nothing = rule.judge([(1000, lambda c: rate(0, 1000, c))])
    assert nothing.half_width == float("inf")


def test_no_stopping() -> None:
    rule = NoStopping(name="none")
    assert rule.looks(77) == [77]
    assert rule.judge([(77, lambda c: rate(1, 77, c))]) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"margin": 0}, "stopping.margin=0"),
        ({"margin": 1.2}, "stopping.margin=1.2"),
        ({"confidence": 1}, "confidence is 1"),
        ({"confidence": 0}, "confidence is 0"),
        ({"first": 0}, "stopping.first=0"),
        ({"growth": 1}, "stopping.growth=1"),
        ({"events": -1}, "stopping.events=-1"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        AlphaSpending(name="s", **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: boundary([0.5, 0.4], [0.01], 0.04),
        lambda: boundary([0.5], [0.01], 0.04),
        lambda: boundary([0.5], [], 0.0),
        lambda: obrien_fleming(0.0, 0.05),
        lambda: obrien_fleming(1.5, 0.05),
        lambda: mixture_interval(1, 10, 1.0),
    ],
)
def test_bad_input_is_refused(call) -> None:
    with pytest.raises(ProgipError):
        call()
