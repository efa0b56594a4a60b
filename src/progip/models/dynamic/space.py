"""What can be chosen of a dynamic network: dimensions, their values, and one choice of all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn

from progip.errors import ProgipError

#: by dimension the value at each of its places: ``depth`` one a stage, ``expand`` one a block
Architecture = dict[str, list[float]]
#: dimensions with a value for every block, those of absent blocks included
OF_BLOCKS = ("expand", "kernel")


@dataclass(kw_only=True)
class Space(ABC):
    """The students of one family; the fields of a subclass are the options of its YAML.

    Attributes:
        base: blocks of each stage where the depth is 0.
        depth: blocks that a stage has besides; what can be chosen, as for the next.
        expand: hidden channels of a block, as a part or multiple of its channels.
        widths: channels of the stages, where the family has no elastic width or it is 1.
        strides: of the first block of each stage.
        stem: channels of the first convolution.
        divisor: channels are multiples of it.
        dropout: before the last layer, in training.

    Raises:
        ProgipError: naming the option that is wrong.
    """

    family: ClassVar[str]

    base: list[int] = field(default_factory=lambda: [2, 2, 4, 2])
    depth: list[int] = field(default_factory=lambda: [0, 1, 2])
    expand: list[float] = field(default_factory=lambda: [0.2, 0.25, 0.35])
    widths: list[int] = field(default_factory=lambda: [256, 512, 1024, 2048])
    strides: list[int] = field(default_factory=lambda: [1, 2, 2, 2])
    stem: int = 64
    divisor: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        stages = len(self.widths)
        self._must("widths", stages > 0 and min(self.widths) > 0, "needs a positive number a stage")
        for name in ("base", "strides"):
            given = getattr(self, name)
            self._must(name, len(given) == stages, f"needs one number for each of {stages} widths")
        self._must("strides", min(self.strides) > 0, "needs positive numbers")
        fewest = min(self.base) + min(self.depth, default=0)
        self._must("base", min(self.base) >= 0 and fewest > 0, "and depth leave a stage no block")
        for name, values in self.choices.items():
            rises = all(a < b for a, b in pairwise(values))
            positive = bool(values) and values[0] >= (0 if name == "depth" else 1e-6)
            self._must(name, rises and positive, "needs positive values in rising order")
        for name in ("stem", "divisor"):
            self._must(name, getattr(self, name) > 0, "must be above 0")
        self._must("dropout", 0 <= self.dropout < 1, "must be in [0, 1)")

    def _must(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ProgipError(f"space.{name}={getattr(self, name)} {rule}")

    @property
    @abstractmethod
    def choices(self) -> dict[str, list[float]]:
        """The values of each dimension, in rising order."""

    @property
    def places(self) -> dict[str, int]:
        """How many values an architecture has in each dimension."""
        stages = len(self.widths)
        blocks = sum(self.base) + stages * self.depth[-1]
        of = {"depth": stages, "width": stages + 1}  # the stem has a width, too
        return {name: of.get(name, blocks) for name in self.choices}

    @abstractmethod
    def network(self, architecture: Architecture, classes: int, channels: int) -> nn.Module:
        """The static network of an architecture, with initial weights."""

    def largest(self) -> Architecture:
        """The largest value at every place: the network that holds all weights."""
        return {name: [values[-1]] * self.places[name] for name, values in self.choices.items()}

    def smallest(self) -> Architecture:
        """The smallest value at every place."""
        return {name: [values[0]] * self.places[name] for name, values in self.choices.items()}

    def sample(self, opened: Mapping[str, list[float]] | None = None) -> Architecture:
        """A uniformly random value at every place, from the global generator of torch.

        Args:
            opened: the values that may be drawn, by dimension; the largest in those not named.
                None: all.
        """
        found = self.largest()
        for name, values in (self.choices if opened is None else opened).items():
            drawn = torch.randint(len(values), (self.places[name],))
            found[name] = [values[int(i)] for i in drawn]
        return found

    def blocks(self, architecture: Architecture) -> list[list[int]]:
        """By stage the places, in dimensions of blocks, of the blocks that are there."""
        found, first = [], 0
        for base, depth in zip(self.base, architecture["depth"], strict=True):
            found.append(list(range(first, first + base + int(depth))))
            first += base + self.depth[-1]
        return found

    def check(self, architecture: Mapping[str, Any], where: str) -> None:
        """Refuse what is no architecture of this space.

        Raises:
            ProgipError: naming ``where`` and the dimension.
        """
        if set(architecture) != set(self.choices):
            dimensions = ", ".join(self.choices)
            raise ProgipError(f"{where}: an architecture has {dimensions}, not {architecture}")
        for name, values in self.choices.items():
            given = architecture[name]
            if len(given) != self.places[name] or not set(given) <= set(values):
                raise ProgipError(
                    f"{where}: {name}={list(given)} must be {self.places[name]} of {values}"
                )

    def encoded(self, architecture: Architecture) -> list[float]:
        """One-hot, (places x values) of every dimension in turn; zeros for absent blocks."""
        there = {place for stage in self.blocks(architecture) for place in stage}
        code: list[float] = []
        for name, values in self.choices.items():
            for place, chosen in enumerate(architecture[name]):
                counts = name not in OF_BLOCKS or place in there
                code += [float(counts and value == chosen) for value in values]
        return code

    def count(self) -> int:
        """How many students there are that differ."""
        of_block = math.prod(len(v) for name, v in self.choices.items() if name in OF_BLOCKS)
        total = len(self.choices["width"]) ** self.places["width"] if "width" in self.choices else 1
        for base in self.base:
            total *= sum(of_block ** (base + depth) for depth in self.depth)
        return total

    def divisible(self, channels: float) -> int:
        """The nearest multiple of ``divisor``, at least that, and not below 90 % of ``channels``.

        The rule of the MobileNet papers' code.
        """
        found = max(self.divisor, int(channels + self.divisor / 2) // self.divisor * self.divisor)
        return found if found >= 0.9 * channels else found + self.divisor

    def described(self) -> dict[str, Any]:
        """JSON types only: what ``from_description`` of the family takes."""
        return {"family": self.family, **asdict(self)}
