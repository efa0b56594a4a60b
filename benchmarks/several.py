"""Runs with hits: the incremental executor, which starts at the first, over the reference.

    python benchmarks/several.py --networks resnet20 --weights DIR --images FILE.npz --threads 1

ODIN, one random bit of every neuron that is hit, in Conv2d and Linear, at rates that hit so many
neurons of a run on average; *single*: exactly one. With ``--protections`` the network corrects
itself. Interleaved, medians; nothing is timed before all columns were equal.
*saved*: the share of a run's work that lies before its first hit, as campaigns estimate it.
"""

import argparse
import statistics
from functools import partial
from typing import Any

from common import NETWORKS, clock_of, equal, formats, keep, load_images, parser, timed

# isort: split
import torch

from progip.campaign.first_hits import saved_share
from progip.engine.corrected import CorrectedPipeline
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.base import named_hits
from progip.fault_models.flipped_bits import OneBit
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.correcting import Correcting
from progip.protections.gradient_statistics import GradientStatistics
from progip.protections.range_restriction import RangeRestriction
from progip.records import PASSES

FITTED = 512  # images that a protection learns from
PROTECTIONS: dict[str, Correcting | None] = {
    "none": None,
    "ranger_clip": RangeRestriction(name="ranger_clip"),
    "ranger_bound": RangerBound(name="ranger_bound", images=FITTED, validation=0),
    "gradient_statistics": GradientStatistics(name="gradient_statistics"),
}


def measure(name: str, protection: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the table of one network with one protection."""
    _, _, mean, std = NETWORKS[name]
    images = load_images(options.images, FITTED, mean, std)
    plain, mine, _ = formats(name, options, images)
    network, correction = plain, PROTECTIONS[protection]
    if correction is not None:
        batches = [(part, torch.zeros(len(part))) for part in images.split(options.batch)]
        network = correction.protect(plain, correction.fit(plain, batches))
    method = ODIN(name="odin", std=std)
    with profiling(network, mine[:2]) as ranges, torch.no_grad():
        network(mine)
    pipeline = Pipeline(network, method, ranges)
    if correction is not None:
        pipeline = CorrectedPipeline(network, method, ranges, plain)
    sites = find_sites(network, method, mine[:2])
    traced, clock, rows = Traced(pipeline, mine), clock_of(options), {}
    for fault_pass in options.passes:
        for hits in (None, *options.hits):
            model: Any = (
                SingleBitFlip(name="flip") if hits is None else OneBit(name="flips", rate=0.0)
            )
            chosen = model.select(sites[fault_pass])
            draw = None
            if hits is not None:
                model.rate = hits / sum(site.neurons for site in chosen)
                draw = partial(model.hits, chosen, seed=0, key=fault_pass)
            plan = model.plan(chosen, len(mine), 0, fault_pass, 0, options.runs)
            quick = IncrementalExecutor(traced, chosen, fault_pass, mine, draw=draw)
            slow = ReferenceExecutor(pipeline, chosen, fault_pass, mine, options.batch, draw)
            part = plan.slice(0, options.reference_runs)
            if not equal(slow.run(part), quick.run(part)):
                raise SystemExit(f"{name}, {fault_pass}: outcomes differ; nothing was timed")
            taken: dict[str, list[float]] = {"reference": [], "incremental": []}
            for _ in range(options.repeats):
                taken["reference"].append(timed(partial(slow.run, part), clock) / len(part))
                taken["incremental"].append(timed(partial(quick.run, plan), clock) / len(plan))
            medians = {k: statistics.median(v) for k, v in taken.items()}
            few = plan.slice(0, 128)
            found = named_hits(chosen, few) if draw is None else draw(few)
            saved = saved_share(found, 128, chosen, fault_pass, PASSES)
            rows[f"{fault_pass}, {'single' if hits is None else f'{hits:g}'}"] = {
                "saved": saved,
                "seconds": taken,
                "over_reference": medians["reference"] / medians["incremental"],
            }
    return rows


def table(results: dict[str, Any]) -> str:
    lines = ["| network | pass, mean hits | saved | over reference |", "|---|---|---|---|"]
    for network, rows in results.items():
        for label, row in rows.items():
            over = row["over_reference"]
            lines.append(f"| {network} | {label} | {row['saved']:.2f} | {over:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--hits", nargs="+", type=float, default=[0.5, 1, 3, 10, 100])
    made.add_argument("--protections", nargs="+", choices=list(PROTECTIONS), default=["none"])
    made.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    made.add_argument("--runs", type=int, default=1024)
    options = made.parse_args()
    options.channels_last = True
    torch.set_num_threads(options.threads)
    results = {
        f"{name}, {protection}": measure(name, protection, options)
        for name in options.networks
        for protection in options.protections
    }
    keep("several", options, results, table(results))


if __name__ == "__main__":
    main()
