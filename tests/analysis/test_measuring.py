"""Means of measures against SciPy, a delta-method formula, and a population that is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from progip.analysis.kinds import OOD_VERDICT
from progip.analysis.measuring import MeanMoments, MeanSums
from progip.analysis.tally import Tally
from progip.outcomes.declared import Measure

CHANGE = Measure("change", "after", "before", "originally_correct", "Change")
UNIFORM: dict[str, Any] = {"sampling": {"name": "uniform"}}


def moments_of(
    manifest: dict[str, Any], columns: dict[str, NDArray], parts: int = 3
) -> MeanMoments:
    """The moments of rows that come in several parts."""
    rows = len(columns["after"])
    flags = {name: np.zeros(rows, dtype=bool) for name in OOD_VERDICT.flags}
    full = {"run_id": np.arange(rows), "weight": np.ones(rows), **flags, **columns}
    tally, sums = Tally(manifest), MeanSums(CHANGE)
    for part in np.array_split(np.arange(rows), parts):
        some = {name: values[part] for name, values in full.items()}
        sums.add(some, tally.places(some))
        tally.add(some)
    return sums.moments(tally)


def some_rows(seed: int, rows: int = 500) -> dict[str, NDArray]:
    draw = np.random.default_rng(seed)
    return {
        "after": draw.normal(3, 2, rows),
        "before": draw.normal(1, 1, rows),
        "originally_correct": draw.random(rows) < 0.7,
    }


def test_a_plain_mean_is_students() -> None:
    columns = some_rows(1)
    values = (columns["after"] - columns["before"])[columns["originally_correct"]]
    found = moments_of(UNIFORM, columns).mean()
    assert found.estimate == pytest.approx(values.mean())
    assert found.n == len(values)
    # of a domain of random size: the same but for (n - 1) / n of the whole sample
    assert found.variance == pytest.approx(values.var(ddof=1) / len(values), rel=5e-3)
    expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=5e-3)


def test_what_is_not_finite_is_counted_apart() -> None:
    columns = some_rows(2)
    columns["after"][[3, 5, 8]] = np.nan, np.inf, -np.inf
    columns["before"][13] = np.inf
    columns["originally_correct"][[3, 5, 8, 13]] = True, True, False, True
    values = columns["after"] - columns["before"]
    kept = columns["originally_correct"] & np.isfinite(values)
    found = moments_of(UNIFORM, columns).mean()
    assert found.estimate == pytest.approx(values[kept].mean())
    assert (found.nonfinite.events, found.nonfinite.n) == (3, kept.sum() + 3)


def test_weights_give_the_ratio_estimate() -> None:
    columns = some_rows(3)
    weight = np.random.default_rng(4).uniform(0.2, 3, 500)
    found = moments_of({"sampling": {"name": "importance"}}, {**columns, "weight": weight}).mean()
    w = weight * columns["originally_correct"]
    x = columns["after"] - columns["before"]
    mean = (w * x).sum() / w.sum()
    residual = w * (x - mean)
    assert found.estimate == pytest.approx(mean)
    assert found.variance == pytest.approx(500 * residual.var(ddof=1) / w.sum() ** 2, rel=1e-9)


SHARES = np.array([0.5, 0.3, 0.15, 0.05])
PARTS = np.array([0.1, 0.2, 0.3, 0.4])
MEANS = np.array([0.0, 1.0, 5.0, 20.0])
CORRECT = np.array([0.9, 0.8, 0.5, 0.3])


def test_a_stratified_mean_is_unbiased_and_its_interval_covers() -> None:
    truth = (SHARES * CORRECT * MEANS).sum() / (SHARES * CORRECT).sum()
    strata = [{"share": s, "allocation": a, "pilot": a} for s, a in zip(SHARES, PARTS, strict=True)]
    manifest = {"sampling": {"name": "stratified", "strata": strata, "pilot_runs": 0}}
    draw = np.random.default_rng(5)
    found, covered = [], 0
    for _ in range(400):
        stratum = draw.choice(4, 600, p=PARTS)
        columns = {
            "after": MEANS[stratum] + draw.normal(0, 1 + stratum, 600),
            "before": np.zeros(600),
            "originally_correct": draw.random(600) < CORRECT[stratum],
            "stratum": stratum,
            "weight": (SHARES / PARTS)[stratum],
        }
        mean = moments_of(manifest, columns).mean()
        found.append(mean.estimate)
        covered += mean.low <= truth <= mean.high
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / 20)
    assert 0.92 <= covered / 400 <= 0.98


def test_samples_are_added() -> None:
    one, other = (moments_of(UNIFORM, some_rows(seed)) for seed in (6, 7))
    values = [
        (c["after"] - c["before"])[c["originally_correct"]] for c in (some_rows(6), some_rows(7))
    ]
    both = np.concatenate(values)
    found = (one + other).mean()
    assert found.estimate == pytest.approx(both.mean())
    assert found.variance == pytest.approx(both.var(ddof=1) / len(both), rel=0.02)
    assert one.scaled(3.0).mean().estimate == pytest.approx(values[0].mean())
    assert one.scaled(3.0).mean().variance == pytest.approx(one.mean().variance)


def test_nothing_is_not_a_number() -> None:
    columns = {**some_rows(8, 4), "originally_correct": np.zeros(4, dtype=bool)}
    assert np.isnan(moments_of(UNIFORM, columns, 1).mean().estimate)
