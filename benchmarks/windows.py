"""What computing in windows of the image is worth: the incremental executor with and without.

    python benchmarks/windows.py --network resnet18 --sizes 64 128 224 --batch 4 --threads 1

Networks of torchvision with random weights, random images, ODIN, layer-uniform single flips in
Conv2d and Linear. Interleaved, medians of processor time; nothing is timed before both gave equal
outcomes. Golden work is included, tracing and the first call, in which shapes are tried, are not.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from common import clock_of, equal, keep, timed

# isort: split
import torch

from progip.compat import enable_torchvision
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.records import PASSES


def measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a run of each pass, with and without windows."""
    enable_torchvision()
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(options.network, weights=None)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    images = torch.randn(options.batch, 3, size, size)
    images = images.contiguous(memory_format=torch.channels_last)
    method = ODIN(name="odin", std=[0.2] * 3)
    with profiling(network, images[:2]) as ranges, torch.no_grad():
        network(images)
    pipeline = Pipeline(network, method, ranges)
    sites = find_sites(network, method, images[:2])
    traced, clock = Traced(pipeline, images), clock_of(options)
    runs = options.batch * options.runs_per_image
    result = {}
    for fault_pass in options.passes:
        model = SingleBitFlip(name="flip")
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(images), 0, fault_pass, 0, runs)
        executors = [
            IncrementalExecutor(traced, chosen, fault_pass, images, windows=windows)
            for windows in (True, False)
        ]
        outcomes = [executor.run(plan) for executor in executors]
        if not equal(*outcomes):
            raise SystemExit(f"{size} pixels, {fault_pass}: outcomes differ; nothing was timed")
        seconds: list[list[float]] = [[], []]
        for _ in range(options.repeats):
            for executor, taken in zip(executors, seconds, strict=True):
                taken.append(timed(partial(executor.run, plan), clock) / runs)
        windows, whole = (statistics.median(taken) for taken in seconds)
        result[fault_pass] = {"windows": windows, "whole": whole, "gain": whole / windows}
    return result


def table(results: dict[str, Any]) -> str:
    lines = ["| pixels | pass | runs/s with windows | without | gain |", "|---|---|---|---|---|"]
    for size, passes in results.items():
        for name, row in passes.items():
            rates = " | ".join(f"{1 / row[key]:.1f}" for key in ("windows", "whole"))
            lines.append(f"| {size} | {name} | {rates} | {row['gain']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--network", default="resnet18")
    made.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 224])
    made.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--runs-per-image", type=int, default=98)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    results = {str(size): measure(size, options) for size in options.sizes}
    keep("windows", options, results, table(results))


if __name__ == "__main__":
    main()
