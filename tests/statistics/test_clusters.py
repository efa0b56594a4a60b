"""The bootstrap over clusters against SciPy's, one event or several that share the draws."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from progip.statistics import cluster_bootstrap, cluster_bootstraps, clusters


@pytest.fixture(params=[10_000_000, 900])
def _at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory at once changes no number."""
    monkeypatch.setattr(clusters, "_AT_ONCE", request.param)


@pytest.mark.usefixtures("_at_once")
def test_intervals_are_those_of_scipy() -> None:
    random = np.random.default_rng(2)
    rows, images = 700, 130
    label = random.integers(0, images, rows)
    weight = random.choice([0.2, 1 / 3, 1.7], rows)
    events = [random.random(rows) < chance for chance in (0.1, 0.5, 0.97)]
    nothing = np.zeros(rows, bool)
    together = cluster_bootstraps([*events, nothing], weight, label)
    _, index = np.unique(label, return_inverse=True)
    base = np.bincount(index, weight)
    for event, found in zip(events, together, strict=False):
        expected = bootstrap(
            (np.bincount(index, weight * event), base),
            lambda hits, base, axis: hits.sum(axis) / base.sum(axis),
            paired=True,
            n_resamples=clusters.RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        assert (found.low, found.high) == tuple(expected.confidence_interval)
        p = weight @ event / weight.sum()
        variance = weight**2 @ (event - p) ** 2 / weight.sum() ** 2
        assert found.design_effect == pytest.approx(expected.standard_error**2 / variance)
        assert cluster_bootstrap(event, weight, label) == found
    assert together[-1].estimate == 0 < together[-1].high
    assert np.isnan(together[-1].design_effect)
