"""Planned sampling of weight faults, on another laboratory's whole list as the population."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from progip.fault_models.base import Atoms, Site
from progip.sampling.importance import Importance
from progip.statistics import Rate
from progip.statistics.clustered_sums import ClusteredSums

FAULTS, IMAGES = 300, 10_000
BAD, ALL = np.array([False, True]), np.array([True, True])


def campaign(draw: np.random.Generator, by_bit: list[np.ndarray], odds: dict[int, float]) -> Rate:
    """The total critical rate from 300 faults, each tried on all images."""
    sizes = np.array([len(part) for part in by_bit], dtype=float)
    share = sizes / sizes.sum()
    site = Site("conv", 0, "Conv2d", (1,), 1, 1, ("Conv2d",), parameter="weight")
    atoms = Atoms([site], np.zeros(32, dtype=int), np.arange(32, dtype=np.int8), share)
    chance = Importance(name="importance", bit_odds=odds).probabilities(atoms)
    bit = draw.choice(32, FAULTS, p=chance)
    critical = np.array([draw.choice(by_bit[b]) for b in bit], dtype=float)
    weight, maps = (share / chance)[bit], np.arange(FAULTS)
    sums = ClusteredSums([1.0], [1.0], 2)
    for bad, count in ((0, IMAGES - critical), (1, critical)):
        sums.add_clusters(np.zeros(FAULTS), np.full(FAULTS, bad), weight * count, maps)
    return sums.moments().rate(BAD, ALL)


def test_300_planned_faults_give_the_rate_of_all(real_data: Path) -> None:
    path = real_data / "faults" / "resnet20_weight_faults.csv"
    if not path.exists():
        pytest.skip(f"no list of faults at {path}")
    listed = pd.read_csv(path)
    truth = listed["critical"].sum() / listed["n_injections"].sum()
    assert abs(truth - 0.012758) < 5e-7  # what the laboratory reports
    by_bit = [part["critical"].to_numpy() for _, part in listed.groupby("Bit")]
    draw = np.random.default_rng(0)
    uniform = np.std([campaign(draw, by_bit, {}).estimate for _ in range(200)])
    planned = [campaign(draw, by_bit, {30: 31.0}) for _ in range(200)]
    estimates = np.array([rate.estimate for rate in planned])
    assert abs(estimates.mean() / truth - 1) < 0.03
    assert np.mean([rate.low <= truth <= rate.high for rate in planned]) >= 0.9
    assert uniform > 3 * estimates.std()  # 9 times fewer faults for the same interval
