"""What every model is: an architecture, where its weights are, and how it was trained."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from progip.errors import ProgipError
from progip.models.heads.base import Head
from progip.models.recipe import Recipe
from progip.models.rewrite import with_own_modules


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
        operations: give sums, concatenations and other operations of several tensors modules of
            their own, so that faults can hit their results, too; the network must be one that
            ``torch.fx`` can trace.
        recipe: how ``python -m progip train`` trains it.
        head: what stands in the place of the last linear layer; None: that layer.
    """

    #: weights under these prefixes serve training alone: left out when a file is loaded
    training_only: ClassVar[tuple[str, ...]] = ()

    name: str
    classes: int = 10
    channels: int = 3
    weights: str | None = None
    sha256: str | None = None
    feature_layer: str | None = None
    operations: bool = False
    recipe: Recipe = field(default_factory=Recipe)
    head: Head | None = None

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
        that are written that way, all of this package, need nothing but for ``operations``.
        """
        return with_own_modules(network, operations=True) if self.operations else network

    def published_weights(self) -> dict[str, torch.Tensor]:
        """The state dict that ``weights: published`` stands for.

        Raises:
            ProgipError: where there is none, or it cannot be downloaded.
        """
        raise ProgipError(
            f"model '{self.name}' has no weights called 'published'; give model.weights=PATH "
            f"or train it: python -m progip train model={self.name}"
        )
