"""Sampling plans: what they draw, how they weigh it, and that a run depends on nothing else."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from progip import records
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.sampling.base import Pilot, Population, SamplingPlan
from progip.sampling.importance import Importance
from progip.sampling.stratified import Stratified
from progip.sampling.uniform import Uniform

SITES = [
    Site("conv1", 0, "Conv2d", (4, 8, 8), 256, 1000),
    Site("conv1", 1, "Conv2d", (8, 4, 4), 128, 2000),
    Site("fc", 0, "Linear", (10,), 10, 80),
]
CORRECT = np.arange(50) % 5 > 0
PLANS = [
    Uniform(name="u"),
    Stratified(name="s", allocation="proportional"),
    Stratified(name="s", pilot=300),
    Importance(name="i", bit_odds={30: 20.0}, layer_odds={"conv.*": 3.0}),
]


def population(weighting: str = "layer", bits: tuple[int, ...] = (3, 30, 31)) -> Population:
    model = SingleBitFlip(name="f", weighting=weighting, bits=list(bits))
    return Population(model, SITES, CORRECT)


def pilot_of(plan: SamplingPlan, p: Population) -> Pilot | None:
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
    assert chisquare(one["neuron"].value_counts().reindex(range(10), fill_value=0)).pvalue > 1e-4


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


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Stratified(name="s", by=["bit", "bit"]), "sampling.by"),
        (lambda: Stratified(name="s", by=[]), "sampling.by"),
        (lambda: Stratified(name="s", by=["pass"]), "sampling.by"),
        (lambda: Stratified(name="s", allocation="best"), "sampling.allocation"),
        (lambda: Stratified(name="s", aim="speed"), "sampling.aim"),
        (lambda: Stratified(name="s", pilot=5), "sampling.pilot=5"),
        (lambda: Stratified(name="s", defensive=0), "sampling.defensive=0"),
        (lambda: Importance(name="i", defensive=1.5), "sampling.defensive=1.5"),
        (lambda: Importance(name="i", bit_odds={3: -1}), "odds of 3 are -1"),
        (lambda: draw(Importance(name="i", bit_odds={7: 2})), "never hits bit 7"),
        (lambda: draw(Importance(name="i", layer_odds={"x": 2})), "stratum without sites"),
        (lambda: draw(Importance(name="i", layer_odds={"(": 2})), "not a regular expression"),
        (
            lambda: draw(Importance(name="i", bit_odds={3: 0, 30: 0, 31: 0})),
            "every odds is 0",
        ),
    ],
)
def test_wrong_options_are_named(make, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        make()


def draw(plan: SamplingPlan) -> pa.Table:
    return plan.plan(population(), 0, "k", 0, 10)


def test_a_layer_without_neurons_is_a_stratum_without_sites() -> None:
    empty = [*SITES, Site("gone", 0, "Linear", (0,), 0, 0)]
    model = SingleBitFlip(name="f", weighting="neuron")
    with pytest.raises(ProgipError, match="layer=gone#0 is a stratum without sites"):
        Stratified(name="s").shares(Population(model, empty, CORRECT))


def test_other_fault_models_have_no_strata() -> None:
    class Burst(FaultModel):
        select = plan = None  # type: ignore[assignment]

    Burst.__abstractmethods__ = frozenset()
    with pytest.raises(ProgipError, match="no strata; use sampling=uniform"):
        Population(Burst(name="burst"), SITES, CORRECT).atoms  # noqa: B018
