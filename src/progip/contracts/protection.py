"""The contract of a protection that watches: a pure function of what was observed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from progip.contracts.broken import Owner
from progip.probes import Probe, optional_probes
from progip.protections.base import EVIDENCE, Evidence, Judgement, Protection, outside
from progip.protections.correcting import Correcting
from progip.protections.supervised import Supervised

COUNT = 64


def check_protection(protection: Protection, probes: Sequence[Probe] = ()) -> None:
    """Check all that campaigns and deployed detectors rely on.

    Thresholds recur and are finite; NaN in a column that ``watches`` names always raises an alarm;
    rows stand alone; no other column is looked at; ``limits``, where there are any, say the same
    as ``judge``; a stage is named where there is an alarm, and nowhere else.

    Args:
        protection: with the options to check.
        probes: of your own, whose columns it may look at beside those of ``progip.probes``.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(protection)
    owner.check_options()
    owner.must(not isinstance(protection, Correcting), "corrects: it is no function of evidence")
    known = [*(probe() for probe in optional_probes().values()), *probes]
    produced = [column for probe in known for column in probe.produces]
    more: dict[str, tuple[int, ...]]
    more = {c.name: () for c in produced if pa.types.is_floating(c.type)}
    more |= {c.name: (_width(protection),) for c in produced if c.wide}
    unknown = set(protection.watches) - {*EVIDENCE, *more}
    owner.must(not unknown, f"watches {', '.join(sorted(unknown))}, which no run shows")
    for vanishes in (True, False):
        _check_with(owner, protection, vanishes, more)


def _check_with(
    owner: Owner, protection: Protection, vanishes: bool, more: Mapping[str, tuple[int, ...]]
) -> None:
    clean, faulty = _evidence(1, more), _evidence(2, more, faulty=True)
    thresholds = protection.calibrate(clean, gradient_vanishes=vanishes)
    owner.must(
        isinstance(thresholds, Mapping)
        and all(isinstance(k, str) and isinstance(v, float) for k, v in thresholds.items()),
        "must calibrate to a dict of names and floats",
    )
    owner.must(all(np.isfinite(v) for v in thresholds.values()), "has a threshold not finite")
    again = protection.calibrate(clean, gradient_vanishes=vanishes)
    owner.must(dict(again) == dict(thresholds), "calibrates to other thresholds a second time")
    judged = _judged(owner, protection, faulty, thresholds)
    turned = np.arange(COUNT)[::-1]
    other = _judged(owner, protection, {k: v[turned] for k, v in faulty.items()}, thresholds)
    owner.must(
        _same(Judgement(judged.alarm[turned], judged.stage[turned]), other),
        "judges a run by the runs beside it, or by its place",
    )
    watched = {k: v for k, v in faulty.items() if k in protection.watches}
    if watched:
        try:
            alone = _judged(owner, protection, watched, thresholds)
        except KeyError as error:
            owner.breaks(f"looks at {error}, which it does not name in watches")
        owner.must(_same(alone, judged), "judges by columns that it does not name in watches")
    declared = protection.watches is not Protection.watches  # the default says nothing
    for column in protection.watches if declared else ():
        values = faulty[column].copy()
        if values.dtype == bool:
            continue
        values[:] = np.nan
        missed = ~_judged(owner, protection, {**faulty, column: values}, thresholds).alarm
        owner.must(not missed.any(), f"takes NaN in {column} for fine")
    limits = protection.limits(thresholds)
    if limits:
        owner.must(
            _same(outside(limits, faulty), judged), "gives limits that say another thing than judge"
        )


def _width(protection: Protection) -> int:
    """How many values a list of evidence holds: those that a supervised protection learnt of."""
    state = protection.state() if isinstance(protection, Supervised) else {}
    return len(state["mean"]) if "mean" in state else 3


def _judged(
    owner: Owner, protection: Protection, evidence: Evidence, thresholds: Mapping[str, float]
) -> Judgement:
    before = {name: values.copy() for name, values in evidence.items()}
    alarm, stage = protection.judge(evidence, thresholds)
    same = all(np.array_equal(before[n], v, equal_nan=True) for n, v in evidence.items())
    owner.must(same, "changes the evidence it judges")
    count = len(next(iter(evidence.values())))
    owner.must(
        isinstance(alarm, np.ndarray) and alarm.dtype == bool and alarm.shape == (count,),
        f"must give an alarm (n,) bool, for {count} runs it gave {getattr(alarm, 'shape', alarm)}",
    )
    named = np.array([str(name) != "" for name in stage], dtype=bool)
    owner.must(np.array_equal(named, alarm), "must name a stage where it alarms, and only there")
    return Judgement(alarm, np.asarray(stage))


def _same(one: Judgement, other: Judgement) -> bool:
    stages = [str(name) for name in one.stage] == [str(name) for name in other.stage]
    return np.array_equal(one.alarm, other.alarm) and stages


def _evidence(
    seed: int, more: Mapping[str, tuple[int, ...]], faulty: bool = False
) -> dict[str, np.ndarray]:
    """Plausible observations of COUNT runs; of faulty ones, some far out and some not finite."""
    draw = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {
        "grad_max": draw.lognormal(-4, 1, COUNT).astype(np.float32),
        "score": draw.normal(0.13, 0.01, COUNT),
        "range_excess_first": -draw.uniform(0, 0.1, COUNT).astype(np.float32),
        "range_excess_second": -draw.uniform(0, 0.1, COUNT).astype(np.float32),
        **{n: draw.normal(0, 1, (COUNT, *s)).astype(np.float32) for n, s in more.items()},
    }
    if faulty:
        for number, column in enumerate(values):
            for place, value in enumerate((np.inf, np.nan, 1e30, 0.0, 1e-30)):
                values[column][(5 * number + place) % COUNT] = value
    checked = {"logits": "range_excess_first", "gradient": "grad_max", "score": "score"}
    return values | {
        f"nonfinite_{name}": ~np.isfinite(values[column]) for name, column in checked.items()
    }
