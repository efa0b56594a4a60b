"""Runs per second where the class alone is the outcome: next to PyTorchFI and MRFI.

    pip install --no-deps --target PEERS pytorchfi==0.6.0 mrfi==2.1.0
    PYTHONPATH=PEERS python benchmarks/classification.py --weights DIR --images FILE.npz

One forward pass, layer-uniform single flips in Conv2d and Linear, the same fault table for all.
Nothing is timed before peers gave the very logits of our reference executor (same batch size and
memory format) and the incremental executor the very outcomes of the reference. Interleaved,
medians. Peers that are not installed are left out, with a line that says so.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from common import NETWORKS, clock_of, equal, formats, keep, load, load_images, parser, timed

# isort: split
import numpy as np
import torch
from peers import batches, mrfi_planned, pytorchfi_planned, pytorchfi_shipped
from torch import Tensor, nn

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.incremental.graph import same_bits
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass

FEW = 10  # runs per image, next to --runs-per-image
OURS = "incremental"


@dataclass(kw_only=True)
class FirstForward(OODMethod):
    """No detector: the logits of one forward pass, with what the table needs taken from them."""

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        with torch.no_grad():
            enter("first_forward")
            logits = network(images)
            return Detection(logits, logits, images, logits.double().amax(1))

    def first_forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def second_forward(self, network: nn.Module, images: Tensor) -> Tensor:
        raise NotImplementedError


def clean(network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        network(images)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a run of every row of the table of one network."""
    _, _, mean, std = NETWORKS[name]
    plain, trained = load(name, options.weights)
    size = options.clean_batch
    images = load_images(options.images, max(options.batch, size), mean, std)
    fast, mine, _ = formats(name, options, images)
    method = FirstForward(name="first_forward")
    pipeline = Pipeline(fast, method, RangeTable())
    model = SingleBitFlip(name="flip")
    sites = model.select(find_sites(fast, method, mine[:2])["first_forward"])
    count = max(options.reference_runs // size, 1) * size  # whole batches, which peers need
    many, few = (options.batch * runs for runs in (options.runs_per_image, FEW))
    planned = model.plan(sites, len(mine), 0, "first_forward", 0, max(count, many, few))
    part, plan = planned.slice(0, count), planned.slice(0, many)
    start = time.perf_counter()
    traced = Traced(pipeline, mine)
    result: dict[str, Any] = {"trained": trained, "trace_seconds": time.perf_counter() - start}
    reference = ReferenceExecutor(pipeline, sites, "first_forward", mine, options.batch)
    incremental = IncrementalExecutor(traced, sites, "first_forward", mine)
    expected = reference.run(part)
    if not equal(expected, incremental.run(part)):
        raise SystemExit(f"{name}: outcomes differ from the reference's; nothing was timed")

    standard = images[: options.batch].contiguous()
    same_table = batches(part, sites, standard, size)
    wanted = logits_of(plain, sites, standard, part, size)
    classes = np.concatenate([np.asarray(seen.argmax(1)) for seen in wanted])
    known = np.isfinite(torch.cat(wanted).numpy()).all(1)
    result["class_as_in_other_format"] = float((classes == expected["class"])[known].mean())
    rows: dict[str, tuple[Callable[[], Any], int]] = {
        "clean forward": (partial(clean, plain, images[:size]), size),
        "reference": (partial(reference.run, part), len(part)),
        OURS: (partial(incremental.run, plan), len(plan)),
        f"{OURS}, {FEW} runs per image": (partial(incremental.run, planned.slice(0, few)), few),
    }
    peers: dict[str, Callable[[], Callable[[], list[Tensor]]]] = {
        "PyTorchFI expert": lambda: pytorchfi_planned(plain, same_table, redeclare=False),
        "PyTorchFI redeclared": lambda: pytorchfi_planned(plain, same_table, redeclare=True),
        "PyTorchFI as shipped": lambda: pytorchfi_shipped(plain, same_table),
        "MRFI": lambda: mrfi_planned(plain, same_table, sites),
    }
    if options.channels_last:
        other = images[: options.batch].contiguous(memory_format=torch.channels_last)
        turned = batches(part, sites, other, size)
        turned = [
            b._replace(images=b.images.contiguous(memory_format=torch.channels_last))
            for b in turned
        ]
        whole = images[:size].contiguous(memory_format=torch.channels_last)
        rows["clean forward, channels_last"] = (partial(clean, fast, whole), size)
        peers["PyTorchFI expert, channels_last"] = lambda: pytorchfi_planned(
            fast, turned, redeclare=False
        )
    for peer, make in peers.items():
        try:
            run = make()
        except ImportError as error:
            print(f"{peer}: not measured, {error}; how to install it: benchmarks/peers.py")
            continue
        seen = run()
        target = logits_of(fast, sites, other, part, size) if "channels" in peer else wanted
        if peer != "PyTorchFI as shipped" and not all(map(same_bits, seen, target)):
            raise SystemExit(f"{name}, {peer}: logits differ from ours; nothing was timed")
        rows[peer] = (run, len(part))

    seconds: dict[str, list[float]] = {row: [] for row in rows}
    clock = clock_of(options)
    for _ in range(options.repeats):  # interleaved, so that a busy machine hits all alike
        for row, (function, runs) in rows.items():
            seconds[row].append(timed(function, clock) / runs)
    medians = {row: statistics.median(values) for row, values in seconds.items()}
    result["rows"] = {
        row: {
            "per_second": 1 / median,
            "incremental_over_this": median / medians[OURS],
            "seconds_of_repeats": seconds[row],
        }
        for row, median in medians.items()
    }
    return result


def logits_of(network: nn.Module, sites: Any, images: Tensor, plan: Any, size: int) -> list[Tensor]:
    """The logits that our reference executor sees, batch for batch."""
    seen: list[Tensor] = []
    hook = network.register_forward_hook(lambda m, i, o: seen.append(o.clone()))
    pipeline = Pipeline(network, FirstForward(name="first_forward"), RangeTable())
    ReferenceExecutor(pipeline, sites, "first_forward", images, size).run(plan)
    hook.remove()
    return seen


def table(results: dict[str, Any]) -> str:
    lines = ["| network | row | per second | incremental over it |", "|---|---|---|---|"]
    for name, result in results.items():
        for row, values in result["rows"].items():
            over = values["incremental_over_this"]
            lines.append(f"| {name} | {row} | {values['per_second']:.1f} | {over:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(options.threads)
    results = {name: measure(name, options) for name in options.networks}
    keep("classification", options, results, table(results))


if __name__ == "__main__":
    main()
