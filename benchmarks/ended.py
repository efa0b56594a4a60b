"""What ending runs of tiny change is worth: interval width at equal processor time.

    python benchmarks/ended.py --networks resnet20 densenet --weights DIR --images FILE.npz \
        --batch 32 --threads 1

ODIN, layer-uniform single flips in Conv2d and Linear, the failure rate of the default outcome. A
pilot is executed whole and gives the limits; the same later runs are then executed with and without
`sampling.roulette`, interleaved. *gain* is variance x time without over that with: how many times
more processor time the same interval takes without it. Pilot and tracing are in neither.
"""

import argparse
import math
import statistics
from functools import partial
from typing import Any

from common import NETWORKS, clock_of, equal, formats, keep, load_images, parser, timed

# isort: split
import numpy as np
import pyarrow as pa
import torch

from progip.analysis.kinds import OOD_VERDICT
from progip.analysis.tally import Tally
from progip.engine.clean_values import CleanValues
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.roulette import Roulette
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.outcomes.base import Context
from progip.outcomes.ood_verdict import OODVerdict
from progip.records import PASSES
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan
from progip.sampling.roulette import limits, spared
from progip.sampling.stratified import Stratified
from progip.sampling.uniform import Uniform
from progip.statistics.roc import threshold_at_tpr

OUTCOME = OODVerdict(name="ood_verdict")


class Subject:
    """A network with its images, and what judging its runs needs."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        _, _, mean, std = NETWORKS[name]
        images = load_images(options.images, 2 * options.count, mean, std)
        network, _, self.trained = formats(name, options, images)
        images = images.contiguous(memory_format=torch.channels_last)
        self.images, calibration = images[: options.count], images[options.count :]
        held = np.load(options.images)["labels"][: options.count] if options.images else None
        with torch.no_grad():
            own = np.concatenate([network(x).argmax(1).numpy() for x in self.images.split(64)])
        self.labels = own if held is None else held
        self.method = ODIN(name="odin", std=std)
        with profiling(network, self.images[:2]) as ranges, torch.no_grad():
            network(self.images[:256])
        self.pipeline = Pipeline(network, self.method, ranges)
        self.traced = Traced(self.pipeline, self.images[: options.batch])
        golden = golden_table(self.pipeline, self.images, self.labels, options.batch)
        self.golden = {n: golden[n].to_numpy(zero_copy_only=False) for n in ("class", "score")}
        others = golden_table(
            self.pipeline, calibration, np.zeros(len(calibration), np.int64), options.batch
        )
        self.threshold = threshold_at_tpr(others["score"].to_numpy(), 0.95)
        self.sites = find_sites(network, self.method, self.images[:2])

    def flags(self, plan: pa.Table, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        samples = plan["sample_index"].to_numpy()
        runs = {"label": self.labels[samples]}
        for name, values in self.golden.items():
            runs |= {f"golden_{name}": values[samples], f"faulty_{name}": found[name]}
        flags = OUTCOME.judge(runs, Context("id", self.threshold))
        return {**flags, "alarm": np.zeros(len(samples), dtype=bool)}


def measure(
    subject: Subject, fault_pass: str, sampling: SamplingPlan, options: argparse.Namespace
) -> dict[str, Any]:
    """One row of the table."""
    flip = SingleBitFlip(name="flip")
    chosen = flip.select(subject.sites[fault_pass])
    nothing = {name: values[: len(subject.images)] for name, values in subject.golden.items()}
    every = pa.table({"sample_index": np.arange(len(subject.images))})
    correct = subject.flags(every, nothing)["originally_correct"]
    reference = ReferenceExecutor(
        subject.pipeline, chosen, fault_pass, subject.images, options.batch
    )
    distance = np.abs(subject.golden["score"] - subject.threshold)
    values = partial(CleanValues, reference, 2**29)
    space = FaultSpace(flip, chosen, correct, distance, values)
    whole = IncrementalExecutor(subject.traced, chosen, fault_pass, subject.images)
    watching = Roulette(options.probability, 0.0, 0.0, 0, 0, fault_pass)
    first = IncrementalExecutor(
        subject.traced, chosen, fault_pass, subject.images, roulette=watching
    )
    plan = sampling.plan(space, 0, fault_pass, 0, options.pilot)
    found = first.run(plan)
    failed = OOD_VERDICT.failed(subject.flags(plan, found))
    limit = limits(
        failed,
        found["change_at_fault"],
        found["change_at_logits"],
        plan["weight"].to_numpy(),
        options.probability,
    )
    strata = len(sampling.shares(space))
    stratum = plan["stratum"].to_numpy()
    counts = (np.ones(len(plan)), failed, failed * 0)
    pilot = Pilot(*(np.bincount(stratum, c, minlength=strata) for c in counts))
    later = sampling.plan(space, 0, fault_pass, options.pilot, options.pilot + options.runs, pilot)
    near = frozenset(spared(distance).tolist())
    rule = Roulette(options.probability, *limit, 0, 0, fault_pass, near)
    ending = IncrementalExecutor(subject.traced, chosen, fault_pass, subject.images, roulette=rule)
    seconds: dict[str, list[float]] = {"whole": [], "ending": []}
    clock = clock_of(options)
    results: dict[str, Any] = {}
    for _ in range(options.repeats):
        for name, executor in (("whole", whole), ("ending", ending)):
            seconds[name].append(
                timed(lambda e=executor, n=name: results.__setitem__(n, e.run(later)), clock)
            )
    kept = results["ending"]["roulette"] > 0
    both = [
        {name: results[of][name][kept] for name in results["whole"]} for of in ("whole", "ending")
    ]
    if not equal(*both):
        raise SystemExit(f"{fault_pass}: kept runs differ; nothing is reported")
    variance, rate, failures = {}, {}, {}
    described = sampling.describe(space, pilot)
    for name, result in results.items():
        manifest = {"sampling": {**described, "pilot_runs": 0}}
        columns = subject.flags(later, result)
        columns |= {n: later[n].to_numpy() for n in ("weight", "stratum")}
        if name == "ending":
            manifest["sampling"]["roulette"] = {"probability": options.probability}
            columns |= {"roulette": result["roulette"], "clean_alarm": columns["alarm"]}
        tally = Tally(manifest)
        tally.add(columns)
        moments = tally.moments()
        events, base = (OOD_VERDICT.masks[k] for k in OOD_VERDICT.rates["failure_rate_before"])
        share = moments.total[events].sum() / moments.total[base].sum()
        contrast = events - share * base
        variance[name] = float(contrast @ moments.covariance @ contrast)
        rate[name] = float(share)
        failures[name] = int(moments.rows[events].sum())
    taken = {name: statistics.median(found) for name, found in seconds.items()}
    times = taken["whole"] / taken["ending"]
    spread = variance["ending"] / variance["whole"] if variance["whole"] else math.nan  # no failure
    return {
        "limits": limit,
        "ended": float((results["ending"]["roulette"] == 0).mean()),
        "failures": failures,
        "rate": rate,
        "seconds": seconds,
        "time": times,
        "variance": spread,
        "gain": times / spread,
        "width": (spread / times) ** 0.5,
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        "| network | plan | pass | ended % | failures, whole and with ending | time | variance "
        "| gain | width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for network, plans in results.items():
        for plan, passes in plans.items():
            for name, row in passes.items():
                failures = f"{row['failures']['whole']}, {row['failures']['ending']}"
                lines.append(
                    f"| {network} | {plan} | {name} | {100 * row['ended']:.0f} | {failures} "
                    f"| {row['time']:.2f} | {row['variance']:.2f} | {row['gain']:.2f} "
                    f"| {row['width']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--count", type=int, default=128, help="images")
    made.add_argument("--runs", type=int, default=6000, help="later ones, of each pass")
    made.add_argument("--pilot", type=int, default=2000)
    made.add_argument("--probability", type=float, default=0.1)
    made.add_argument("--plans", nargs="+", default=["uniform", "stratified"])
    made.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    options = made.parse_args()
    options.channels_last = True
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    for network in options.networks:
        subject = Subject(network, options)
        for name in options.plans:
            plan: SamplingPlan = Uniform(name="uniform")
            if name == "stratified":
                plan = Stratified(name="stratified", pilot=options.pilot, aim="failure_rate")
            rows = results.setdefault(network, {}).setdefault(name, {})
            for fault_pass in options.passes:
                rows[fault_pass] = measure(subject, fault_pass, plan, options)
                keep("ended", options, results, table(results))


if __name__ == "__main__":
    main()
