"""Runs per second of the executors, next to the detector without any fault.

    python benchmarks/engine.py --networks resnet20 densenet --weights DIR --images FILE.npz

Interleaved, medians, the same fault table for all, equal outcomes checked before anything is
timed. Writes a table (Markdown) and everything measured (JSON) into --output. Without --weights,
or for a network that has none there, weights are random.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import progip.engine  # noqa: F401  # first: it settles how matrix products are computed

# isort: split
import numpy as np
import torch
from torch import Tensor, nn

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import find_range_sites, profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.models.densenet import DenseNetBC
from progip.models.resnet import ResNet
from progip.models.resnet_cifar import CifarResNet
from progip.models.vgg import VGG16BN
from progip.ood_methods.odin import ODIN
from progip.records import PASSES

#: network, its weight file, mean and std of its input normalisation
NETWORKS: dict[str, tuple[Callable[[], Any], str, list[float], list[float]]] = {
    "resnet20": (
        lambda: CifarResNet(name="resnet20"),
        "resnet20-12fca82f.th",
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    ),
    "densenet": (
        lambda: DenseNetBC(name="densenet"),
        "densenet_bc_100_12_cifar10_lab.pth",
        [0.4914, 0.4822, 0.4465],
        [0.2023, 0.1994, 0.2010],
    ),
    "resnet34": (lambda: ResNet(name="resnet34"), "", [0.5] * 3, [0.25] * 3),
    "vgg16_bn": (lambda: VGG16BN(name="vgg16_bn"), "", [0.5] * 3, [0.25] * 3),
}


def load(name: str, weights: Path | None) -> tuple[nn.Module, bool]:
    """The network in evaluation mode, and whether its weights are trained ones."""
    make, file, _, _ = NETWORKS[name]
    torch.manual_seed(0)
    network = make().network()
    trained = weights is not None and bool(file) and (weights / file).is_file()
    if weights is not None and trained:
        state = torch.load(weights / file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return network.eval().requires_grad_(False), trained


def load_images(file: Path | None, count: int, mean: list[float], std: list[float]) -> Tensor:
    if file is None:
        return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(np.load(file)["data"][:count]).float() / 255
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def timed(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(bool(((a[n] == b[n]) | ((a[n] != a[n]) & (b[n] != b[n]))).all()) for n in a)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the table of one network."""
    _, _, mean, std = NETWORKS[name]
    plain, trained = load(name, options.weights)
    images = load_images(options.images, max(options.batch, 64), mean, std)
    fast = plain
    mine = images[: options.batch]
    if options.channels_last:
        fast, _ = load(name, options.weights)
        fast = fast.to(memory_format=torch.channels_last)
        mine = mine.contiguous(memory_format=torch.channels_last)
    method = ODIN(name="odin", std=std)
    with profiling(fast, find_range_sites(fast, mine[:2])) as ranges, torch.no_grad():
        fast(mine)
    pipeline = Pipeline(fast, method, ranges)
    sites = find_sites(fast, method, mine[:2])
    start = time.perf_counter()
    traced = Traced(pipeline, mine)
    result: dict[str, Any] = {"trained": trained, "trace_seconds": time.perf_counter() - start}
    clock = time.thread_time if options.threads == 1 else time.perf_counter
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--weights", type=Path, help="folder of weight files")
    parser.add_argument("--images", type=Path, help="npz with uint8 'data' (n, 3, 32, 32)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--clean-batch", type=int, default=64)
    parser.add_argument("--runs-per-image", type=int, default=98, help="the paper's campaign: 98")
    parser.add_argument("--reference-runs", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels-last", action="store_true", help="both executors, not clean")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {name: measure(name, options) for name in options.networks}
    options.output.mkdir(parents=True, exist_ok=True)
    machine = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": options.threads,
        "clock": "CPU seconds" if options.threads == 1 else "wall seconds",
        "load_average": os.getloadavg(),
    }
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    everything = {"machine": machine, "options": settings, "networks": results}
    (options.output / "engine.json").write_text(json.dumps(everything, indent=1) + "\n")
    (options.output / "engine.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
