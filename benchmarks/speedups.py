"""Runs per second of the incremental executor under several laws of faults, with what could be had.

    python benchmarks/speedups.py --subjects resnet20:32 resnet18:224 vit_b_32:224 --threads 1

ODIN. *clean* is the detector without hooks in the better of both memory formats, *reference* the
plain executor in ours. *floor*: times that multiply-accumulates alone would allow over a run
executed whole, if only rows that differ were computed, each whole or in its window, and nothing
else took time; golden work is in it as it is in the measured figures, tracing and first calls in
neither. Interleaved, medians; nothing is timed before both executors gave equal outcomes.
"""

import argparse
import math
import statistics
from functools import partial
from typing import Any

from common import NETWORKS, clock_of, equal, keep, load, load_images, parser, timed

# isort: split
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip.compat import enable_torchvision
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.incremental import executor as executor_module
from progip.engine.incremental.graph import Ref, aten
from progip.engine.incremental.operations import PRODUCTS
from progip.engine.incremental.propagation import Propagation
from progip.engine.incremental.steps import Step
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.records import PASSES

#: which faults: columns of the table
LAWS: dict[str, dict[str, Any]] = {
    "uniform bits": {},
    "exponent bits": {"bits": list(range(23, 31))},
    "neuron-uniform": {"weighting": "neuron"},
}


def multiply_accumulates(traced: Traced, number: int) -> int:
    """Of one row of an operation; 0 for operations that are no products."""
    node = traced.nodes[number]
    target = node.replaces or node.target
    if target not in PRODUCTS:
        return 0

    def shape(argument: Any) -> tuple[int, ...]:
        if isinstance(argument, Tensor):
            return tuple(argument.shape)
        if argument.node in traced.constants:
            return tuple(traced.constants[argument.node].shape)
        layout = traced.nodes[argument.node].layout
        return layout.shape if layout is not None else ()

    given = [shape(a) for a in node.args if isinstance(a, Ref | Tensor)]
    if target is aten.convolution_backward.default:
        made, weight = given[0], given[2]
        whole = math.prod(made) * math.prod(weight[1:])
    elif target is aten.convolution.default:
        assert node.layout is not None
        whole = math.prod(node.layout.shape) * math.prod(given[1][1:])
    else:  # (bias,) a (..., k), b (k, n)
        assert node.layout is not None
        whole = math.prod(node.layout.shape) * given[-2][-1]
    return whole // traced.batch


class Counting(Propagation):
    """Adds up the multiply-accumulates of rows that differ."""

    total = 0

    def _step(self, step: Step) -> None:
        super()._step(step)
        traced = self.schedule.traced
        own = multiply_accumulates(traced, step.node) if step.node < len(traced.nodes) else 0
        if not own:
            return
        state = self.states.get(step.node)
        rows = sum(int(pack.alive.sum()) for pack in state.packs) if state else 0
        Counting.total += rows * own
        for crop in self._windows.crops.get(step.node, []):
            shape = self.schedule.layouts[step.node].shape if step.layout is not None else None
            if shape is None:  # a tuple: of the gradient that it gives first
                shape = self.schedule.rules[step.node].shape
            part = crop.frame.h * crop.frame.w / math.prod(shape[-2:])
            Counting.total += int(crop.alive.sum() * own * min(part, 1.0))


def counted(executor: IncrementalExecutor, plan: pa.Table) -> float:
    """Multiply-accumulates a run that a plan needs, without golden ones."""
    Counting.total = 0
    executor_module.Propagation = Counting  # type: ignore[misc]
    try:
        executor.run(plan)
    finally:
        executor_module.Propagation = Propagation  # type: ignore[misc]
    return Counting.total / len(plan)


def subject_of(name: str, size: int, options: argparse.Namespace) -> tuple[nn.Module, Tensor, bool]:
    """A network, images of a size, and whether its weights are trained."""
    if name in NETWORKS:
        _, _, mean, std = NETWORKS[name]
        network, trained = load(name, options.weights)
        return network, load_images(options.images, options.clean_batch, mean, std), trained
    enable_torchvision()
    import torchvision

    torch.manual_seed(0)
    more = {"image_size": size} if name.startswith("vit") else {}
    network = torchvision.models.get_model(name, weights=None, **more)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    count = max(options.clean_batch if size <= 64 else 8, options.batch)
    return network.eval().requires_grad_(False), torch.randn(count, 3, size, size), False


def measure(name: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every row of the table of one network."""
    network, images, trained = subject_of(name, size, options)
    method, clock = ODIN(name="odin", std=[0.2] * 3), clock_of(options)
    clean = {}
    for label, kind in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        network = network.to(memory_format=kind)
        given = images.contiguous(memory_format=kind)
        call = partial(method.detect, network, given)
        call()
        clean[label] = [timed(call, clock) / len(given) for _ in range(options.repeats)]
    best = min(clean, key=lambda label: statistics.median(clean[label]))
    mine = images[: options.batch].contiguous(memory_format=torch.channels_last)
    with profiling(network, mine[:2]) as ranges, torch.no_grad():
        network(mine)
    pipeline = Pipeline(network, method, ranges)
    sites = find_sites(network, method, mine[:2])
    traced = Traced(pipeline, mine)
    whole = sum(multiply_accumulates(traced, n) for n in range(len(traced.nodes)))
    rows: dict[str, Any] = {}
    for law in options.laws:
        model = SingleBitFlip(name="flip", **LAWS[law])
        for runs_per_image in options.runs:
            seconds: dict[str, dict[str, float]] = {}
            for fault_pass in PASSES:
                chosen = model.select(sites[fault_pass])
                count = options.batch * runs_per_image
                plan = model.plan(chosen, len(mine), 0, fault_pass, 0, count)
                part = plan.slice(0, options.reference_runs)
                reference = ReferenceExecutor(pipeline, chosen, fault_pass, mine, options.batch)
                quick = IncrementalExecutor(traced, chosen, fault_pass, mine)
                if not equal(reference.run(part), quick.run(part)):
                    raise SystemExit(f"{name}, {fault_pass}: outcomes differ; nothing was timed")
                needed = counted(quick, plan) + whole / runs_per_image
                taken: dict[str, list[float]] = {"reference": [], "incremental": []}
                for _ in range(options.repeats):
                    taken["reference"].append(
                        timed(partial(reference.run, part), clock) / len(part)
                    )
                    taken["incremental"].append(timed(partial(quick.run, plan), clock) / count)
                seconds[fault_pass] = {k: statistics.median(v) for k, v in taken.items()}
                seconds[fault_pass]["floor"] = whole / needed
            mean = {k: statistics.mean(s[k] for s in seconds.values()) for k in taken}
            share = statistics.mean(1 / s["floor"] for s in seconds.values())
            rows[f"{law}, {runs_per_image} runs an image"] = {
                "passes": seconds,
                "incremental_runs_per_second": 1 / mean["incremental"],
                "over_reference": mean["reference"] / mean["incremental"],
                "over_clean": statistics.median(clean[best]) / mean["incremental"],
                "floor": 1 / share,
            }
    return {
        "trained": trained,
        "clean_format": best,
        "clean_seconds": clean,
        "clean_images_per_second": 1 / statistics.median(clean[best]),
        "multiply_accumulates": whole,
        "rows": rows,
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        "| network | pixels | clean images/s, format | faults, runs an image | runs/s "
        "| over reference | over clean | floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, result in results.items():
        name, size = key.split(":")
        clean = f"{result['clean_images_per_second']:.1f}, {result['clean_format']}"
        for label, row in result["rows"].items():
            law, runs = label.rsplit(", ", 1)
            lines.append(
                f"| {name} | {size} | {clean} | {law}, {runs.split()[0]} "
                f"| {row['incremental_runs_per_second']:.1f} | {row['over_reference']:.2f} "
                f"| {row['over_clean']:.2f} | {row['floor']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--subjects", nargs="+", default=["resnet20:32"], help="NETWORK:PIXELS")
    made.add_argument("--laws", nargs="+", choices=list(LAWS), default=list(LAWS))
    made.add_argument("--runs", nargs="+", type=int, default=[10, 98], help="of each image")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    for subject in options.subjects:
        name, size = subject.split(":")
        results[subject] = measure(name, int(size), options)
        keep("speedups", options, results, table(results))


if __name__ == "__main__":
    main()
