"""Rates of campaigns whose runs were ended early are unbiased: every fault, and by simulation."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import schemas
import torch
from enumeration import CLASSES, flags_of, network

from progip import records
from progip.analysis.kinds import OOD_VERDICT
from progip.analysis.precision import rate_of
from progip.analysis.tally import Tally
from progip.campaign.execution import observed_table
from progip.campaign.judge import evidence_of, golden_evidence, judge
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.roulette import Roulette
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.outcomes.ood_verdict import OODVerdict
from progip.protections.progip import ProGIP
from progip.records import CLEAN_ALARM, PASSES, ROULETTE
from progip.statistics.roc import threshold_at_tpr

IMAGES, P = 8, 0.2
#: far too large on purpose: many of the runs that they end would fail
LIMITS = (3.0, 0.5)
MANIFEST = {"sampling": {"name": "plan", "roulette": {"probability": P}}}


class _Always(Roulette):
    def goes_on(self, runs: np.ndarray) -> np.ndarray:
        return np.full(len(runs), self.key == "go")


@dataclass(frozen=True)
class Every:
    """Every fault of a pass as it is when it goes on, and when it is ended where it can be."""

    going: dict[str, np.ndarray]
    ended: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


@cache
def every_fault(fault_pass: str) -> Every:
    images = torch.randn(IMAGES, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    model = network()
    labels = model(images).argmax(1).numpy()
    labels[::8] = (labels[::8] + 1) % CLASSES
    method = ODIN(name="odin", std=[0.5], epsilon=0.02, temperature=10.0)
    with profiling(model, images[:2]) as ranges, torch.no_grad():
        model(images)
    pipeline = Pipeline(model, method, ranges)
    flip = SingleBitFlip(name="flip")
    sites = flip.select(find_sites(model, method, images[:2])[fault_pass])
    golden = golden_table(pipeline, images, labels, IMAGES)
    every = [
        (image, site.layer, neuron, bit)
        for image in range(IMAGES)
        for site in sites
        for neuron in range(site.neurons)
        for bit in range(32)
    ]
    columns = zip(("sample_index", "layer", "neuron", "bit"), zip(*every, strict=True), strict=True)
    rows = len(every)
    plan = pa.table(
        {
            "run_id": np.arange(rows),
            **{name: list(values) for name, values in columns},
            "call": np.zeros(rows),
            "weight": np.ones(rows),
            "stratum": np.zeros(rows),
        }
    )
    plan = plan.select(records.PLAN.names).cast(records.PLAN)
    protection = ProGIP(name="progip", gradient_margin=0.0, score_margin=0.0)
    evidence = golden_evidence(golden)
    limits = protection.calibrate(evidence, gradient_vanishes=True)
    limits["score_high"] = float(np.sort(evidence["score"])[-3])  # false alarms on two images
    clean = protection.judge(evidence, limits).alarm
    assert 0 < clean.sum() < len(clean)
    names = {name: name for name in records.CELL.names} | {"population": "id"}
    traced = Traced(pipeline, images)

    def judged(roulette: Roulette | None) -> dict[str, np.ndarray]:
        executor = IncrementalExecutor(traced, sites, fault_pass, images, roulette=roulette)
        found = executor.run(plan)
        more = ROULETTE if roulette else pa.schema([])
        executed = pa.schema([*schemas.EXECUTION, *more])
        table = observed_table(plan, golden, found, executed, sites=sites)
        last = [CLEAN_ALARM] if roulette else []
        outcome = OODVerdict(name="ood_verdict")
        schema = pa.schema([*records.CELL, *executed, *outcome.columns, *records.ALARM, *last])
        result = judge(
            table, names, outcome, protection, limits,
            threshold_at_tpr(golden["score"].to_numpy(), 0.9), evidence_of(golden.schema), schema,
            clean if roulette else None,
        )  # fmt: skip
        wanted = [*OOD_VERDICT.flags, "weight", *more.names, *(f.name for f in last)]
        return {name: result[name].to_numpy() for name in wanted}

    rule = _Always(P, *LIMITS, first=0, seed=0, key="go")
    return Every(judged(rule), judged(replace(rule, key="end")), judged(None))


@pytest.mark.parametrize("fault_pass", PASSES)
def test_expectation_over_every_fault_and_decision_is_the_truth(fault_pass: str) -> None:
    every = every_fault(fault_pass)
    played = every.going["roulette"] != 1
    np.testing.assert_array_equal(played, every.ended["roulette"] == 0)
    truth = OOD_VERDICT.categories(every.truth)
    lost = played & OOD_VERDICT.masks["failures"][truth]
    assert lost.sum() > 10  # limits so bad that bias would show
    assert played.mean() > 0.3
    tally = Tally(MANIFEST)
    for rows, chance in ((every.going, P), (every.ended, 1 - P)):
        tally.add({**rows, "weight": np.full(len(truth), chance)})
    expected = np.bincount(truth, minlength=OOD_VERDICT.count)
    np.testing.assert_allclose(tally.moments().total, expected, atol=1e-9 * len(truth))


def simulated(every: Every, runs: int, seed: int) -> tuple[Tally, np.ndarray]:
    """A campaign of faults drawn alike; and its category totals."""
    draw = np.random.default_rng(seed)
    chosen = draw.integers(len(every.truth["weight"]), size=runs)
    going = draw.random(runs) < P
    rows = {
        name: np.where(going, every.going[name][chosen], every.ended[name][chosen])
        for name in every.going
    }
    tally = Tally(MANIFEST)
    tally.add(rows)
    return tally, tally.moments().total


@pytest.mark.parametrize("fault_pass", PASSES)
def test_simulated_campaigns_are_unbiased_and_their_intervals_hold(fault_pass: str) -> None:
    every, runs, campaigns = every_fault(fault_pass), 8000, 200
    truth = OOD_VERDICT.categories(every.truth)
    mean = np.bincount(truth, minlength=OOD_VERDICT.count) / len(truth)
    found = [simulated(every, runs, seed) for seed in range(campaigns)]
    totals = np.array([total for _, total in found]) / runs
    error = totals.std(0, ddof=1) / np.sqrt(campaigns)
    some = error > 0
    assert (np.abs(totals.mean(0) - mean)[some] < 4.5 * error[some]).all()
    np.testing.assert_allclose(totals.mean(0)[~some], mean[~some], atol=1e-12)
    base = every.truth["originally_correct"]
    for name in ("failure_rate_before", "failure_rate", "harmless_alarm_rate"):
        events, within = (OOD_VERDICT.masks[kind][truth] for kind in OOD_VERDICT.rates[name])
        value = events.sum() / within.sum()
        rates = [rate_of(tally.moments(), name) for tally, _ in found]
        inside = np.mean([rate.low <= value <= rate.high for rate in rates])
        assert inside > 0.9, (name, inside)
    assert base.any()


def test_variance_is_that_of_the_two_contributions() -> None:
    every, runs = every_fault("second_forward"), 1500
    found = [simulated(every, runs, seed) for seed in range(400)]
    totals = np.array([total for _, total in found])
    said = np.mean([tally.moments().covariance for tally, _ in found], 0)
    seen = np.cov(totals.T)
    spread = np.sqrt(np.outer(np.diag(seen), np.diag(seen))) + 1e-12
    assert (np.abs(said - seen) / spread).max() < 0.35


def test_strata_count_divided_rows_within_their_shares() -> None:
    every = every_fault("first_forward")
    truth = OOD_VERDICT.categories(every.truth)
    share = [0.3, 0.7]
    part = [0.6, 0.4]
    stratum = (np.arange(len(truth)) % 3 == 0).astype(np.int64)
    strata = [
        {"name": str(h), "share": s, "pilot": a, "allocation": a}
        for h, (s, a) in enumerate(zip(share, part, strict=True))
    ]
    manifest = {"sampling": {**MANIFEST["sampling"], "name": "stratified", "strata": strata}}
    expected = sum(
        s * np.bincount(truth[stratum == h], minlength=OOD_VERDICT.count) / (stratum == h).sum()
        for h, s in enumerate(share)
    )
    totals, said = [], []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        rows = np.concatenate(
            [draw.choice(np.flatnonzero(stratum == h), int(900 * a)) for h, a in enumerate(part)]
        )
        going = draw.random(len(rows)) < P
        columns = {
            name: np.where(going, every.going[name][rows], every.ended[name][rows])
            for name in every.going
        }
        columns |= {"stratum": stratum[rows]}
        columns["weight"] = (np.array(share) / np.array(part))[stratum[rows]]
        tally = Tally(manifest)
        tally.add(columns)
        moments = tally.moments()
        totals.append(moments.total / moments.total.sum())
        said.append(np.diag(moments.covariance) / moments.total.sum() ** 2)
    error = np.std(totals, 0, ddof=1) / np.sqrt(len(totals))
    some = error > 0
    assert (np.abs(np.mean(totals, 0) - expected)[some] < 4.5 * error[some]).all()
    ratio = np.mean(said, 0)[some] / np.var(totals, 0, ddof=1)[some]
    assert ratio.min() > 0.6
    assert ratio.max() < 1.7


def test_without_roulette_sums_are_what_they_were() -> None:
    category = np.array([0, 1, 1, 5])
    plain, divided = (Tally({"sampling": s}) for s in ({}, MANIFEST["sampling"]))
    columns = flags_of(category) | {"weight": np.ones(4)}
    plain.add(columns)
    divided.add(columns | {"roulette": np.ones(4), "clean_alarm": np.zeros(4, bool)})
    for name in ("rows", "total", "squares", "covariance", "stratified"):
        a, b = getattr(plain.moments(), name), getattr(divided.moments(), name)
        np.testing.assert_array_equal(a, b)
