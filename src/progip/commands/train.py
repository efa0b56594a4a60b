"""``progip train``: weights of a model by its recipe."""

import argparse
import shlex
from pathlib import Path
from typing import Any

import torch

from progip.config import build, composed
from progip.datasets.base import Dataset
from progip.launching.launched import program
from progip.models.base import Model


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("train", help=train.__doc__, description=train.__doc__)
    sub.add_argument(
        "overrides",
        nargs="*",
        help="as for `progip run`: model=resnet20 dataset=cifar10; recipe=fast: on a CPU in hours",
    )
    sub.add_argument("--output", help="the .safetensors file to write")
    sub.add_argument("--restart", action="store_true", help="ignore an earlier checkpoint")
    sub.set_defaults(action=train)


def train(arguments: argparse.Namespace) -> None:
    """Train a model by its recipe and write its weights."""
    from progip.models.training import train as train_model

    cfg = composed(arguments.overrides, primary="train")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    model = build(cfg.model, Model, "model")
    dataset = build(cfg.dataset, Dataset, "dataset")
    output = Path(arguments.output or f"outputs/weights/{model.name}-{dataset.name}.safetensors")
    trained = train_model(
        model,
        dataset.split("train"),
        dataset.test_images(),
        dataset.mean,
        dataset.std,
        output=output,
        resume=not arguments.restart,
        device=cfg.device,
        seed=cfg.seed,
    )
    print(f"{trained.path}\nsha256 {trained.sha256}")
    read = ("dataset", "recipe", "model.weights", "model.recipe", "model.head.embeddings")
    same = [word for word in arguments.overrides if not word.startswith(read)]
    print(f"use it: {program()} {shlex.join([*same, f'model.weights={trained.path}'])}")
