"""Rates and means by layer and bit where runs share fault maps, against plain sums over maps."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from progip.analysis.kinds import kinds_of
from progip.analysis.site_rates import rate_of_sums
from progip.analysis.site_sums import (
    measure_sums,
    measured,
    measures_of_maps,
    of_maps,
    site_sums,
)
from progip.outcomes.criticality import Criticality
from progip.outcomes.declared import Measure

MAPS, IMAGES = 30, 40


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(4)
    number = np.repeat(np.arange(MAPS), IMAGES)
    bit = draw.choice([3, 30], MAPS)[number]
    chance = np.where(draw.random(MAPS) < 0.4, 0.95, 0.01)[number]
    critical = draw.random(len(number)) < chance
    layer = np.array(["a", "b"], dtype=object)[draw.integers(2, size=MAPS)][number]
    weight = np.where(bit == 30, 0.5, 2.0)
    return {"map": number, "layer": layer, "bit": bit, "weight": weight, "critical": critical,
            "masked": ~critical, "non_critical": critical & False,
            "x": draw.normal(size=len(number)) + chance}  # fmt: skip


def in_shards(rows: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """As they are read: a map may lie in two of them."""
    return [{n: v[part] for n, v in rows.items()} for part in (slice(0, 530), slice(530, None))]


def test_rates_count_maps(rows: dict[str, np.ndarray]) -> None:
    kinds = kinds_of(Criticality(name="criticality").declared)
    parts = [site_sums(part, kinds) for part in in_shards(rows)]
    found = of_maps(pd.concat(parts), ["layer", "bit"]).reset_index()
    frame = pd.DataFrame(rows)
    assert int(found["maps"].sum()) == MAPS
    widths = []
    for row in found.to_dict("records"):
        mine = frame[(frame["layer"] == row["layer"]) & (frame["bit"] == row["bit"])]
        shares = mine.groupby("map")["critical"].mean()
        rate = rate_of_sums(row)
        assert rate.estimate == pytest.approx(shares.mean())
        assert rate.n == len(mine)
        widths.append(rate.high - rate.low)
        if 0 < row["failures"] < row["correct"]:
            variance = shares.var(ddof=1) / len(shares)
            size = shares.mean() * (1 - shares.mean()) / variance
            assert rate.effective_n <= size * 1.0001
    assert max(widths) > 0.3  # of a handful of maps, though of hundreds of runs


def test_means_count_maps(rows: dict[str, np.ndarray]) -> None:
    measure = SimpleNamespace(name="m", column="x", minus="", base="")
    assert set(vars(measure)) <= set(Measure.__dataclass_fields__)
    parts = [measure_sums(part, [measure]) for part in in_shards(rows)]
    found = measures_of_maps(pd.concat(parts), [measure]).to_dict("records")
    frame = pd.DataFrame({**rows, "wx": rows["weight"] * rows["x"]})
    for row in found:
        sums = frame[frame["layer"] == row["layer"]].groupby("map")[["weight", "wx"]].sum()
        mean = sums["wx"].sum() / sums["weight"].sum()
        residual = sums["wx"] - mean * sums["weight"]
        n = len(sums)
        error = np.sqrt((residual**2).sum() * n / (n - 1)) / sums["weight"].sum()
        said = measured(row, "m")
        assert said["m"] == pytest.approx(mean)
        assert said["m_high"] - said["m"] == pytest.approx(stats.t.ppf(0.975, n - 1) * error)
