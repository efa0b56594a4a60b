"""What every attack is: images in pixel units in, images within the budget out."""

import importlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.errors import ProgipError

#: pixel levels between black and white: a budget of 8 is 8/255 of the range
LEVELS = 255.0


@dataclass(kw_only=True)
class Attack(ABC):
    """One attack; the fields of a subclass are the options of its YAML.

    It changes no pixel by more than ``budget`` levels of 255 (l_inf) and keeps all of them between
    black and white. The normalisation belongs to the network that it is given.

    Attributes:
        name: what tables call it; the name of its YAML file.
        budget: pixel levels of 255, so 8 is 8/255 = .0314.

    Raises:
        ProgipError: an option has a wrong value.
    """

    sentence: ClassVar[str] = ""
    #: is it torchattacks's?
    of_library: ClassVar[bool] = True

    name: str
    budget: float = 8.0

    def __post_init__(self) -> None:
        self.must("budget", 0 <= self.budget <= LEVELS, f"must be in 0 to {LEVELS:g}")

    @abstractmethod
    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The attacked images.

        Draws from the global random generator of torch.

        Args:
            network: pixels in [0, 1] to logits, as ``PixelNetwork``; in evaluation mode.
            images: (n, channels, height, width) float32 in [0, 1].
            labels: (n,) int64.
        """

    def require_library(self) -> None:
        """Raise ProgipError where it needs a library that is not installed."""
        if self.of_library:
            torchattacks()

    @property
    def epsilon(self) -> float:
        """The budget in units of the pixel range, as libraries want it."""
        return self.budget / LEVELS

    def must(self, key: str, holds: bool, rule: str) -> None:
        value = getattr(self, key)
        if not holds or not math.isfinite(value):
            raise ProgipError(f"attack '{self.name}': {key}={value} {rule}")


@dataclass(kw_only=True)
class Iterated(Attack):
    """An attack of several signed gradient steps.

    Attributes:
        steps: how many.
        step: pixel levels of each.
        random_start: start at a uniformly random point within the budget.
    """

    steps: int = field(default=20)
    step: float = 2.0
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.must("steps", self.steps >= 1, "must be at least 1")
        self.must("step", self.step > 0, "must be above 0")


class PixelNetwork(nn.Module):
    """A network that takes pixels in [0, 1]: (x - mean) / std per channel, then the network.

    Args:
        network: takes normalised images.
        mean, std: per channel, in [0, 1] pixel units.
        channels_last: the memory format that the network wants.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: list[float], std: list[float], channels_last: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        normalised = (pixels - self.mean) / self.std
        logits: Tensor = self.network(normalised.contiguous(memory_format=self.memory))
        return logits


def torchattacks() -> ModuleType:
    """The library. Raises ProgipError where it is not installed."""
    try:
        return importlib.import_module("torchattacks")
    except ImportError as missing:
        raise ProgipError(
            "this attack is torchattacks's; install it with: pip install 'progip[robust]'"
        ) from missing
