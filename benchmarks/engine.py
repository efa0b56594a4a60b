"""Runs per second of the executors, next to the detector without any fault.

    python benchmarks/engine.py --networks resnet20 densenet --weights DIR --images FILE.npz

Interleaved, medians, the same fault table for all, equal outcomes checked before anything is
timed. Writes a table (Markdown) and everything measured (JSON) into --output. Without --weights,
or for a network that has none there, weights are random.
"""

import argparse
import statistics
import time
from functools import partial
from typing import Any

from common import NETWORKS, clock_of, equal, formats, keep, load, load_images, parser, timed

# isort: split
import torch

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.records import PASSES


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the table of one network."""
    _, _, mean, std = NETWORKS[name]
    plain, trained = load(name, options.weights)
    images = load_images(options.images, max(options.batch, 64), mean, std)
    fast, mine, _ = formats(name, options, images)
    method = ODIN(name="odin", std=std)
    with profiling(fast, mine[:2]) as ranges, torch.no_grad():
        fast(mine)
    pipeline = Pipeline(fast, method, ranges)
    sites = find_sites(fast, method, mine[:2])
    start = time.perf_counter()
    traced = Traced(pipeline, mine)
    result: dict[str, Any] = {"trained": trained, "trace_seconds": time.perf_counter() - start}
    clock = clock_of(options)
    clean, rows = [], {}
    runs = options.batch * options.runs_per_image
    plain_batch = images[: options.clean_batch]
    method.detect(plain, plain_batch)
    for fault_pass in PASSES:
        model = SingleBitFlip(name="flip")
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(mine), 0, fault_pass, 0, runs)
        part = plan.slice(0, min(runs, options.reference_runs))
        reference = ReferenceExecutor(pipeline, chosen, fault_pass, mine, options.batch)
        incremental = IncrementalExecutor(traced, chosen, fault_pass, mine)
        if not equal(reference.run(part), incremental.run(part)):
            raise SystemExit(f"{name}, {fault_pass}: outcomes differ; nothing was timed")
        slow, quick = [], []
        for _ in range(options.repeats):  # interleaved, so that a busy machine hits all alike
            clean.append(
                timed(partial(method.detect, plain, plain_batch), clock) / len(plain_batch)
            )
            slow.append(timed(partial(reference.run, part), clock) / len(part))
            quick.append(timed(partial(incremental.run, plan), clock) / runs)
        rows[fault_pass] = (statistics.median(slow), statistics.median(quick))
    seconds_clean = statistics.median(clean)
    means = [statistics.mean(column) for column in zip(*rows.values(), strict=True)]
    rows["mean of passes"] = (means[0], means[1])
    result["clean_images_per_second"] = 1 / seconds_clean
    result["passes"] = {
        key: {
            "reference_runs_per_second": 1 / slow,
            "incremental_runs_per_second": 1 / quick,
            "over_reference": slow / quick,
            "over_clean": seconds_clean / quick,
        }
        for key, (slow, quick) in rows.items()
    }
    return result


def table(results: dict[str, Any]) -> str:
    lines = [
        "| network | pass | clean images/s | reference runs/s | incremental runs/s "
        "| over reference | over clean |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for key, row in result["passes"].items():
            lines.append(
                f"| {name} | {key} | {result['clean_images_per_second']:.1f} "
                f"| {row['reference_runs_per_second']:.1f} "
                f"| {row['incremental_runs_per_second']:.1f} "
                f"| {row['over_reference']:.2f} | {row['over_clean']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(options.threads)
    results = {name: measure(name, options) for name in options.networks}
    keep("engine", options, results, table(results))


if __name__ == "__main__":
    main()
