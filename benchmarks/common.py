"""What the benchmarks of the executors share: networks, images, clocks and how results are kept."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import progip.engine  # noqa: F401  # first: it settles how matrix products are computed

# isort: split
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from progip.models.densenet import DenseNetBC
from progip.models.resnet import ResNet
from progip.models.resnet_cifar import CifarResNet
from progip.models.vgg import VGG16BN

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
    "resnet56": (
        lambda: CifarResNet(name="resnet56", depth=56),
        "resnet56-4bfd9763.th",
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    ),
    "resnet34": (
        lambda: ResNet(name="resnet34"),
        "resnet34_cifar10_short.safetensors",
        [0.4914, 0.4822, 0.4465],
        [0.2023, 0.1994, 0.2010],
    ),
    "vgg16_bn": (lambda: VGG16BN(name="vgg16_bn"), "", [0.5] * 3, [0.25] * 3),
}


def load(name: str, weights: Path | None) -> tuple[nn.Module, bool]:
    """The network in evaluation mode, and whether its weights are trained ones."""
    make, file, _, _ = NETWORKS[name]
    torch.manual_seed(0)
    network = make().network()
    trained = weights is not None and bool(file) and (weights / file).is_file()
    if weights is not None and trained:
        if file.endswith(".safetensors"):
            state = load_file(weights / file)
        else:
            state = torch.load(weights / file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {k.removeprefix("module."): v for k, v in state.items()}
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
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


def clean_evaluation(network: nn.Module, images: Tensor, batch: int) -> Callable[[], None]:
    """A call that evaluates every image, without hooks."""

    def clean() -> None:
        with torch.no_grad():
            for part in images.split(batch):
                network(part)

    return clean


def interleaved(
    variants: dict[str, Callable[[], Any]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of every repeat of every call, all in turn; a first round warms up."""
    clock = clock_of(options)
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for repeat in range(options.repeats + 1):
        for variant, run in variants.items():
            taken = timed(run, clock)
            if repeat:
                seconds[variant].append(taken)
    return seconds


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(bool(((a[n] == b[n]) | ((a[n] != a[n]) & (b[n] != b[n]))).all()) for n in a)


def formats(
    name: str, options: argparse.Namespace, images: Tensor
) -> tuple[nn.Module, Tensor, bool]:
    """The network and one batch of images as our executors take them; whether weights are trained.

    They are in channels_last where the options say so.
    """
    network, trained = load(name, options.weights)
    mine = images[: options.batch]
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)
        mine = mine.contiguous(memory_format=torch.channels_last)
    return network, mine, trained


def parser(description: str) -> argparse.ArgumentParser:
    """With the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    made.add_argument("--weights", type=Path, help="folder of weight files")
    made.add_argument("--images", type=Path, help="npz with uint8 'data' (n, 3, 32, 32)")
    made.add_argument("--batch", type=int, default=16, help="of our executors")
    made.add_argument("--clean-batch", type=int, default=64)
    made.add_argument("--runs-per-image", type=int, default=98, help="the paper's campaign: 98")
    made.add_argument("--reference-runs", type=int, default=64)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--channels-last", action="store_true", help="our executors, not clean")
    made.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    return made


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    """CPU time on one thread, which a busy machine changes little; wall time on more."""
    return time.thread_time if options.threads == 1 else time.perf_counter


def keep(name: str, options: argparse.Namespace, results: dict[str, Any], table: str) -> None:
    """Print the table, and write it and everything measured into the output folder."""
    options.output.mkdir(parents=True, exist_ok=True)
    machine = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": options.threads,
        "clock": "CPU seconds" if options.threads == 1 else "wall seconds",
        "load_average": os.getloadavg(),
    }
    settings = {
        k: v.name if isinstance(v, Path) else v for k, v in vars(options).items() if k != "output"
    }
    everything = {"machine": machine, "options": settings, "networks": results}
    (options.output / f"{name}.json").write_text(json.dumps(everything, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(table)
    print(table)
