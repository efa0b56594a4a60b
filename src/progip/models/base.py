"""What every model is: an architecture, where its weights are, and how it was trained."""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from progip.errors import ProgipError

SCHEDULES = ("steps", "cosine")


@dataclass(kw_only=True)
class Recipe:
    """How a network is trained from scratch; the recipe of each YAML is the published one.

    Attributes:
        epochs, batch_size: passes over the training set, images a step.
        learning_rate, momentum, nesterov, weight_decay: of stochastic gradient descent.
        schedule: ``steps`` multiplies the learning rate by ``gamma`` at each of ``milestones``
            (epochs); ``cosine`` lowers it to 0 over all epochs.
        label_smoothing: share of the target spread evenly over all classes.
        crop_padding: random crops out of images padded with black by this many pixels; 0 = none.
        flip: mirror every image left to right with probability 1/2.
    """

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "steps"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    label_smoothing: float = 0.0
    crop_padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2 (batch normalisation)"),
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "milestones": (
                all(0 < a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
                and all(m > 0 for m in self.milestones),
                "positive epochs in rising order",
            ),
            "gamma": (0 < self.gamma <= 1, "in (0, 1]"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "crop_padding": (self.crop_padding >= 0, "0 or more"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ProgipError(f"recipe.{name} must be {wanted}, not {getattr(self, name)}")
        if self.schedule == "cosine" and self.milestones:
            raise ProgipError(
                "recipe.milestones has no effect with schedule=cosine; leave it empty"
            )

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.learning_rate * self.gamma ** sum(epoch >= m for m in self.milestones)


@dataclass(kw_only=True)
class Model(ABC):
    """One model; the fields of a subclass are the options of its YAML file.

    Attributes:
        name: what result rows call it; the name of its YAML file.
        classes, channels: of the dataset it is used with.
        weights: a local path, an http(s) or file URL, ``package:FILE`` for a packaged file,
            ``published`` where the library of the architecture has its own, or ``random`` for
            seeded initial weights (tests and benchmarks only).
        sha256: of the weight file; required for an http(s) URL, checked wherever it is given.
        feature_layer: the module whose input is the penultimate feature; default the last Linear.
        recipe: how ``python -m progip train`` trains it.
    """

    #: weights under these prefixes serve training alone: left out when a file is loaded
    training_only: ClassVar[tuple[str, ...]] = ()

    name: str
    classes: int = 10
    channels: int = 3
    weights: str | None = None
    sha256: str | None = None
    feature_layer: str | None = None
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for option in ("classes", "channels"):
            if getattr(self, option) < 1:
                raise ProgipError(f"model.{option} must be at least 1, not {getattr(self, option)}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise ProgipError(f"model.sha256 must be 64 hexadecimal digits, not '{self.sha256}'")

    @abstractmethod
    def network(self) -> nn.Module:
        """The freshly initialised architecture: (n, channels, h, w) to logits (n, classes).

        Draws its initial weights from the global random generator of torch.
        """

    def prepared(self, network: nn.Module) -> nn.Module:
        """The network as campaigns use it: every activation, pool and reshape a module of its own.

        Called once, after the weights are in and the network is in evaluation mode. Architectures
        that are written that way, all of this package, need nothing.
        """
        return network

    def published_weights(self) -> dict[str, torch.Tensor]:
        """The state dict that ``weights: published`` stands for.

        Raises:
            ProgipError: where there is none, or it cannot be downloaded.
        """
        raise ProgipError(
            f"model '{self.name}' has no weights called 'published'; give model.weights=PATH "
            f"or train it: python -m progip train model={self.name}"
        )
