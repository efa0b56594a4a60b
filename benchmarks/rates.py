"""What faults at a rate, and the protections that correct them, cost next to the clean network.

    OMP_NUM_THREADS=1 python benchmarks/rates.py --networks resnet20 densenet --weights DIR \
        --images FILE --threads 1 --batch 32 --channels-last

One fault map is one execution of every image with its faults: planned, drawn and executed by the
executor of a campaign, range checks included. It is timed against the clean evaluation
(`network(x)` in the same batches, no hooks), it and all protections in turn, in processor time on
one thread. Memory, of tensors alone and the same in every repeat: what is allocated at most beyond
what lay there before (weights, images, what a protection learnt), and what a protection learnt.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import (
    NETWORKS,
    clean_evaluation,
    formats,
    interleaved,
    keep,
    load_images,
    parser,
)

# isort: split
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import profile

from progip.engine.corrected import CorrectedPipeline
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.flipped_bits import DistinctBits
from progip.ood_methods.none import NoMethod
from progip.protections.correcting import Correcting
from progip.protections.gradient_statistics import GradientStatistics
from progip.protections.range_restriction import RangeRestriction

RATES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
PROTECTIONS: tuple[Correcting, ...] = (
    RangeRestriction(name="ranger_clip"),
    GradientStatistics(name="gradient_statistics"),
    GradientStatistics(
        name="gradient_statistics_always",
        trigger="always",
        checksum="none",
        activation_check="none",
    ),
)
TRAINING = 512  # images a protection is fitted to here; what it costs does not depend on it


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0])
    arguments.add_argument("--count", type=int, default=256, help="images of a fault map")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        measure(name, options)


def measure(name: str, options: argparse.Namespace) -> None:
    """Time every variant of one network, and keep the table."""
    mean, std = NETWORKS[name][2:]
    images = load_images(options.images, options.count + TRAINING, mean, std)
    network, _, trained = formats(name, options, images)
    if options.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    images, training = images[: options.count], images[options.count :]
    if len(training) < options.batch:
        training = images
    batches = [b for b in training.split(options.batch) if len(b) == options.batch]

    clean = clean_evaluation(network, images, options.batch)
    variants: dict[str, Any] = {"clean evaluation": clean}
    states: dict[str, dict[str, Tensor]] = {}
    variants["campaign, no fault drawn"] = executor(
        network, None, network, batches, images, options, 0.0
    )
    for rate in RATES[1:]:
        variants[f"campaign, {rate:g}"] = executor(
            network, None, network, batches, images, options, rate
        )
    for protection in PROTECTIONS:
        state = states[protection.name] = protection.fit(
            network, [(batch, torch.zeros(len(batch))) for batch in batches]
        )
        protected = protection.protect(network, state)

        variants[f"{protection.name}, clean evaluation"] = clean_evaluation(
            protected, images, options.batch
        )
        variants[f"{protection.name}, campaign, 1e-05"] = executor(
            protected, protection, network, batches, images, options, 1e-5
        )
    seconds = interleaved(variants, options)
    base = seconds["clean evaluation"]
    peaks = {variant: peak_memory(run) for variant, run in variants.items()}
    rows = []
    for variant, values in seconds.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        kept = states.get(variant.split(",")[0])
        size = sum(t.numel() * t.element_size() for t in kept.values()) / 2**20 if kept else None
        rows.append(
            {
                "variant": variant,
                "seconds": statistics.median(values),
                "over_clean": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "peak_mib": peaks[variant],
                "learnt_mib": size,
            }
        )
    table = tabulate(
        [
            [r["variant"], len(images) / r["seconds"], r["over_clean"], r["lowest"], r["highest"],
             r["peak_mib"], "" if r["learnt_mib"] is None else f"{r['learnt_mib']:.2f}"]
            for r in rows
        ],
        ["variant", "images/s", "time over clean", "lowest", "highest", "peak, MiB", "learnt, MiB"],
        tablefmt="pipe", floatfmt=("", ".1f", ".3f", ".3f", ".3f", ".2f"),
    )  # fmt: skip
    weights = sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20
    results = {"network": name, "trained": trained, "images": len(images), "rows": rows,
               "weights_mib": weights}  # fmt: skip
    keep(f"rates_{name}", options, results, f"{name}, weights {weights:.2f} MiB\n\n{table}")


def peak_memory(run: Any) -> float:
    """MiB of tensors that a call allocates at most at once, on all devices together."""
    with profile(profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    places: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # total, of which new
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        if event.get("name") == "[memory]":
            found = event["args"]
            places[found["Device Type"], found["Device Id"]].append(
                (found["Total Allocated"], found["Bytes"])
            )
    return sum(max(held)[0] - (held[0][0] - held[0][1]) for held in places.values()) / 2**20


def executor(
    network: nn.Module,
    protection: Correcting | None,
    plain: nn.Module,
    batches: list[Tensor],
    images: Tensor,
    options: argparse.Namespace,
    rate: float,
) -> Any:
    """A function that makes one fault map of all images, as a campaign does it."""
    method = NoMethod(name="none")
    with profiling(network, images[:2]) as ranges:
        method.fit(network, [(batch, torch.zeros(len(batch))) for batch in batches])
    pipeline = (
        Pipeline(network, method, ranges)
        if protection is None
        else CorrectedPipeline(network, method, ranges, plain)
    )
    model = DistinctBits(name="six_bits", rate=rate)
    sites = model.select(find_sites(network, method, images[:2])["first_forward"])
    runner = ReferenceExecutor(
        pipeline, sites, "first_forward", images, options.batch,
        lambda plan: model.hits(sites, plan, 0, "benchmark"),
    )  # fmt: skip
    done = 0

    def fault_map() -> None:
        nonlocal done
        plan = model.plan(sites, len(images), 0, "benchmark", done, done + len(images))
        runner.run(plan)
        done += len(images)

    return fault_map


if __name__ == "__main__":
    main()
