"""Simulated campaigns against the enumerated truth: bias, coverage and width of every plan.

`python tests/statistics/coverage_study.py 1000 1000` prints the tables of docs/statistics.md.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from enumeration import Truth, campaign

from progip.analysis.kinds import OOD_VERDICT
from progip.analysis.precision import rate_of
from progip.sampling.base import SamplingPlan
from progip.sampling.importance import Importance
from progip.sampling.stratified import Stratified
from progip.sampling.uniform import Uniform
from progip.stopping.alpha_spending import AlphaSpending
from progip.stopping.base import PrecisionRule
from progip.stopping.confidence_sequence import ConfidenceSequence

RUNS = 4000
CAP = 12_000
PASSES = ("first_forward", "backward", "second_forward")
QUANTITIES = ("failure_rate", "failure_rate_before", "overall_accuracy")
STOPPED = ("failure_rate", "overall_accuracy")
RULES: dict[str, type[PrecisionRule]] = {
    "alpha spending": AlphaSpending,
    "confidence sequence": ConfidenceSequence,
}
ODDS = {**dict.fromkeys(range(22, 30), 4.0), 30: 12.0, 31: 6.0}


def plans() -> dict[str, SamplingPlan]:
    return {
        "uniform": Uniform(name="uniform"),
        "stratified, proportional": Stratified(name="stratified", allocation="proportional"),
        "stratified, Neyman": Stratified(name="stratified", pilot=1000),
        "Neyman over bits": Stratified(
            name="stratified", by=["bit", "layer", "correct"], pilot=1000
        ),
        "importance": Importance(name="importance", bit_odds=ODDS),
    }


@dataclass(frozen=True)
class Result:
    """What many simulated campaigns of one plan show of one rate.

    bias: mean estimate less the truth, in its simulation errors. coverage: of the 95 % intervals.
    half_width, runs: means. variance: of the estimates.
    """

    fault_pass: str
    plan: str
    quantity: str
    rule: str
    truth: float
    bias: float
    coverage: float
    half_width: float
    runs: float
    variance: float


def study(truth: Truth, fault_pass: str, plan: str, campaigns: int, runs: int = RUNS,
          estimand: str | None = None) -> list[Result]:  # fmt: skip
    """Campaigns of a fixed size under one plan."""
    sampling = plans()[plan]
    moments = [campaign(truth, sampling, seed, [runs], estimand)[0] for seed in range(campaigns)]
    results = []
    for quantity in QUANTITIES:
        found = [rate_of(m, quantity) for m in moments]
        results.append(
            _result(
                truth.rate(quantity, estimand or "layer_mean"),
                found,
                [runs] * campaigns,
                fault_pass,
                plan,
                quantity,
                "none",
            )
        )
    return results


def stopped(
    truth: Truth, fault_pass: str, plan: str, campaigns: int, rules: list[str]
) -> list[Result]:
    """Campaigns that end when an interval is as narrow as that of 6,000 uniform runs."""
    sampling = plans()[plan]
    judges = {}
    for quantity in STOPPED:
        value, base = truth.rate(quantity), truth.share(OOD_VERDICT.rates[quantity][1])
        margin = 1.96 * math.sqrt(value * (1 - value) / (6000 * base))
        for rule in rules:
            judges[quantity, rule] = RULES[rule](
                name="s", of=quantity, margin=margin, first=1500, growth=1.3, events=10
            )
    looks = next(iter(judges.values())).looks(CAP)
    found: dict = {key: ([], []) for key in judges}
    for seed in range(campaigns):
        moments = campaign(truth, sampling, seed, looks)
        for (quantity, rule), stopping in judges.items():
            estimates = [
                (n, lambda c, m=m, q=quantity: rate_of(m, q, c))
                for n, m in zip(looks, moments, strict=True)
            ]
            look = stopping.judge(estimates)
            assert look is not None
            found[quantity, rule][0].append(look.rate)
            found[quantity, rule][1].append(look.runs)
    return [
        _result(truth.rate(quantity), *found[quantity, rule], fault_pass, plan, quantity, rule)
        for quantity, rule in judges
    ]


def _result(value, found, runs, fault_pass, plan, quantity, rule) -> Result:  # type: ignore[no-untyped-def]
    estimates = np.array([r.estimate for r in found])
    return Result(
        fault_pass, plan, quantity, rule, value,
        float((estimates.mean() - value) / (estimates.std(ddof=1) / math.sqrt(len(found)))),
        float(np.mean([r.low <= value <= r.high for r in found])),
        float(np.mean([(r.high - r.low) / 2 for r in found])),
        float(np.mean(runs)),
        float(estimates.var(ddof=1)),
    )  # fmt: skip


def table(results: list[Result]) -> str:
    """Markdown, one line a result; gain against the uniform plan of the same pass and rate."""
    lines = [
        "| pass | rate | truth % | plan | stopping | runs | bias (s.e.) | coverage % | "
        "half-width % | gain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        base = [o for o in results if (o.fault_pass, o.quantity, o.plan, o.rule)
                == (r.fault_pass, r.quantity, "uniform", "none")]  # fmt: skip
        gain = base[0].variance * base[0].runs / (r.variance * r.runs) if base else math.nan
        lines.append(
            f"| {r.fault_pass} | {r.quantity} | {100 * r.truth:.3f} | {r.plan} | {r.rule} | "
            f"{r.runs:,.0f} | {r.bias:+.1f} | {100 * r.coverage:.1f} | {100 * r.half_width:.3f} | "
            f"{gain:.1f} |"
        )
    return "\n".join(lines)


def fixed_sizes(campaigns: int, passes: tuple[str, ...] = PASSES) -> list[Result]:
    """Every plan without stopping."""
    return [
        result
        for fault_pass in passes
        for truth in [Truth.of_pass(fault_pass)]
        for plan in plans()
        for result in study(truth, fault_pass, plan, campaigns)
    ]


def with_stopping(campaigns: int, passes: tuple[str, ...] = PASSES) -> list[Result]:
    """The plans that gain, and uniform, under each rule."""
    results = []
    for fault_pass in passes:
        truth = Truth.of_pass(fault_pass)
        rules = list(RULES) if fault_pass == "first_forward" else ["alpha spending"]
        for plan in ("uniform", "stratified, Neyman", "importance"):
            results += stopped(truth, fault_pass, plan, campaigns, rules)
    return results


if __name__ == "__main__":
    print(table(fixed_sizes(int(sys.argv[1]))), flush=True)
    print(table(with_stopping(int(sys.argv[2]))))
