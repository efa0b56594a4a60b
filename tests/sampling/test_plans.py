"""Sampling plans: what they draw, how they weigh it, and that a run depends on nothing else."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_fault_space import BITS, CORRECT, DISTANCE, SITES, VALUES, population

from progip import records
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan
from progip.sampling.change import (
    CLASSES,
    EDGES,
    NOT_FINITE,
    change_class,
    class_names,
    codes_of,
    scale_of,
)
from progip.sampling.importance import Importance
from progip.sampling.per_layer import PerLayer
from progip.sampling.stratified import Stratified
from progip.sampling.uniform import Uniform

PLANS = [
    Uniform(name="u"),
    Stratified(name="s", allocation="proportional"),
    Stratified(name="s", pilot=300),
    Stratified(name="s", by=BITS, pilot=300),
    Importance(name="i", bit_odds={30: 20.0}, layer_odds={"conv.*": 3.0}),
    PerLayer(name="p"),
]


def pilot_of(plan: SamplingPlan, p: FaultSpace) -> Pilot | None:
    if not plan.pilot_runs:
        return None
    strata = len(plan.shares(p))
    stratum = plan.plan(p, 1, "k", 0, plan.pilot_runs)["stratum"].to_numpy()
    rows = np.bincount(stratum, minlength=strata)
    failures = np.where(np.arange(strata) % 7 == 0, rows // 2, 0)
    return Pilot(rows, failures, failures // 2)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: type(p).__name__)
@given(cuts=st.lists(st.integers(0, 1500), max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_run_does_not_depend_on_how_the_plan_is_cut(plan: SamplingPlan, cuts: list[int]) -> None:
    p = population()
    pilot = pilot_of(plan, p)
    whole = plan.plan(p, 1, "k", 0, 1500, pilot)
    assert whole.schema == records.PLAN
    edges = [0, *sorted(cuts), 1500]
    parts = [plan.plan(p, 1, "k", a, b, pilot) for a, b in pairwise(edges)]
    assert pa.concat_tables(parts).equals(whole)
    assert not plan.plan(p, 2, "k", 0, 1500, pilot)["neuron"].equals(whole["neuron"])


@pytest.mark.parametrize("weighting", ["layer", "neuron"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda p: type(p).__name__)
def test_weighted_rows_follow_the_fault_models_law(plan: SamplingPlan, weighting: str) -> None:
    p = population(weighting)
    rows = plan.plan(p, 1, "k", 0, 40_000, pilot_of(plan, p)).to_pandas()
    assert rows["weight"].mean() == pytest.approx(1, abs=0.02)
    share = rows.groupby(["layer", "call"])["weight"].sum() / rows["weight"].sum()
    sizes = np.array([s.neurons for s in SITES], dtype=float)
    expected = np.full(3, 1 / 3) if weighting == "layer" else sizes / sizes.sum()
    found = [share[s.layer, s.call] for s in SITES]
    assert found == pytest.approx(expected, abs=0.015)
    bits = rows.groupby("bit")["weight"].sum() / rows["weight"].sum()
    assert bits.to_numpy() == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    images = rows.groupby("sample_index")["weight"].sum() / rows["weight"].sum()
    assert images.max() < 0.035
    wrong = rows["weight"][~CORRECT[rows["sample_index"]]].sum() / rows["weight"].sum()
    assert wrong == pytest.approx(0.2, abs=0.015)
    one = rows[(rows["layer"] == "fc") & (rows["bit"] == 30) & CORRECT[rows["sample_index"]]]
    neurons = one.groupby("neuron")["weight"].sum().reindex(range(10), fill_value=0)
    assert chisquare(neurons / one["weight"].max()).pvalue > 1e-4


@pytest.mark.parametrize("by", [["layer", "change", "margin"], ["change"], BITS, ["bit", "margin"]])
def test_a_stratum_holds_every_fault_of_it_alike(by: list[str]) -> None:
    """Faults listed one by one: shares are their sums, rows are faults of their stratum."""
    p, plan = population(), Stratified(name="s", by=by, allocation="proportional")
    strata = plan.strata(p)
    rows = plan.plan(p, 1, "k", 0, 30_000)
    near = np.argsort(np.where(CORRECT, DISTANCE, np.inf), kind="stable")[: CORRECT.sum()]
    ends = [0, 1, 2, 4, 8, 20, 40]  # 2, 5, 10, 20, 50 % of 40 images
    margin = {
        image: f"margin={low}-{high} %"
        for low, high, start, stop in zip(
            [0, 2, 5, 10, 20, 50], [2, 5, 10, 20, 50, 100], ends, ends[1:], strict=False
        )
        for image in near[start:stop]
    }
    layers = {(s.layer, s.call): n for n, s in enumerate(SITES)}

    def name(image: int, site: int, neuron: int, bit: int) -> str:
        code, scale = VALUES.codes[site][image, neuron], VALUES.scale[site]
        parts = {
            "bit": f"bit={bit}",
            "layer": f"layer={SITES[site].layer}#{SITES[site].call}",
            "change": class_names()[int(change_class(bit, code, scale))],
            "correct": "correct" if CORRECT[image] else "wrong",
            "margin": margin.get(image, "wrong"),
        }
        return " ".join(parts[factor] for factor in by)

    expected: dict[str, float] = {}
    for site, s in enumerate(SITES):
        for image in range(50):
            for neuron in range(s.neurons):
                for bit in (3, 30, 31):
                    key = name(image, site, neuron, bit)
                    expected[key] = expected.get(key, 0) + 1 / (3 * 3 * 50 * s.neurons)
    assert dict(zip(strata.names, strata.shares, strict=True)) == pytest.approx(expected)
    columns = (rows[c].to_pylist() for c in ("sample_index", "layer", "call", "neuron", "bit"))
    found = [name(i, layers[la, c], n, b) for i, la, c, n, b in zip(*columns, strict=True)]
    assert found == [strata.names[h] for h in rows["stratum"].to_pylist()]


def test_a_change_is_as_large_as_its_class_says() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=4000) * 2.0 ** rng.uniform(-30, 6, 4000)).astype(np.float32)
    values[:50] = 0
    values[50:100] = rng.uniform(1, 2, 50)
    words = values.view(np.uint32)
    exponents = (words >> 23 & 0xFF).astype(np.uint8)
    scale = scale_of(exponents)
    assert (exponents > scale).mean() <= 0.02 < (exponents >= scale).mean()
    codes = codes_of(exponents, scale)
    inside = (codes == 0) | (np.abs(exponents.astype(int) - scale + 8.5) < 15)
    for bit in range(32):
        with np.errstate(all="ignore"):
            after = (words ^ np.uint32(1 << bit)).view(np.float32).astype(float)
            size = np.log2(np.abs(after - values.astype(float))) - (scale - 127)
        classes = change_class(bit, codes, scale)
        assert np.array_equal(classes == NOT_FINITE, ~np.isfinite(after))
        low = np.array([-np.inf, *EDGES, np.nan])[classes]
        high = np.array([*EDGES, np.inf, np.nan])[classes]
        wrong = inside & np.isfinite(after) & ((size < low - 1.01) | (size > high + 1.01))
        assert not wrong.any(), (bit, values[wrong][:3])
    assert set(change_class(-1, codes, scale)) == {0}
    assert len(class_names()) == CLASSES


def test_a_pilot_visits_changes_and_margins_alike() -> None:
    p, plan = population(bits=tuple(range(32))), Stratified(name="s", pilot=2000)
    strata = plan.strata(p)
    part = plan.pilot_allocation(strata)
    assert part.sum() == pytest.approx(1)
    assert (strata.shares / part).max() <= 2 + 1e-6  # half of it is proportional
    by_change = np.bincount(strata.levels[1], part)
    assert by_change[by_change > 0].min() > 0.4 / (by_change > 0).sum()
    only = Stratified(name="s", pilot=2000, pilot_even=0)
    assert only.pilot_allocation(strata) == pytest.approx(strata.shares, abs=1e-11)


@given(start=st.integers(0, 10**9), count=st.integers(200, 900))
@settings(max_examples=30, deadline=None)
def test_every_stretch_of_runs_has_every_stratums_due(start: int, count: int) -> None:
    plan, p = Stratified(name="s", allocation="proportional"), population()
    shares = plan.shares(p)
    stratum = plan.plan(p, 0, "k", start, start + count)["stratum"].to_numpy()
    rows = np.bincount(stratum, minlength=len(shares))
    assert np.abs(rows - count * shares).max() < 5


def test_neyman_goes_where_failures_are() -> None:
    plan, p = Stratified(name="s", by=["bit"], pilot=300), population()
    rows = np.array([100, 100, 100])
    strata = plan.strata(p)
    allocation = plan.allocations(strata, Pilot(rows, np.array([0, 50, 2]), np.array([0, 5, 2])))
    assert allocation.sum() == pytest.approx(1)
    assert allocation[1] > 0.4 > allocation[2] > allocation[0] >= 0.3 / 3 - 1e-9
    assert np.array_equal(plan.allocations(strata, None), strata.shares)
    described = plan.describe(p, None)
    assert [s["name"] for s in described["strata"]] == ["bit=3", "bit=30", "bit=31"]


def test_weights_are_bounded_by_the_defensive_share() -> None:
    p = population()
    for plan in (
        Importance(name="i", bit_odds={30: 1e6}, defensive=0.25),
        Stratified(name="s", pilot=300, defensive=0.25),
    ):
        rows = plan.plan(p, 0, "k", 0, 5000, pilot_of(plan, p))
        assert rows["weight"].to_numpy().max() <= 4 + 1e-9


def test_importance_weight_is_target_over_sampling_probability() -> None:
    p = population()
    plan = Importance(name="i", bit_odds={30: 4.0}, defensive=0.5)
    q = plan.probabilities(p.atoms)
    assert q.sum() == pytest.approx(1)
    bit30 = q[p.atoms.bit == 30].sum()
    assert bit30 == pytest.approx(0.5 * 4 / 6 + 0.5 / 3)
    rows = plan.plan(p, 0, "k", 0, 20_000).to_pandas()
    assert rows[rows["bit"] == 30]["weight"].unique() == pytest.approx([(1 / 3) / bit30])
    assert (rows["bit"] == 30).mean() == pytest.approx(bit30, abs=0.015)


def test_population_size() -> None:
    assert population().size == 50 * (256 + 128 + 10) * 3
