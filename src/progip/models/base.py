"""What every model is: an architecture, where its weights are, and how it was trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import nn


@dataclass(kw_only=True)
class Recipe:
    """How a network is trained from scratch; the defaults of each YAML are the published ones."""

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    label_smoothing: float = 0.0
    crop_padding: int = 4
    flip: bool = True


@dataclass(kw_only=True)
class Model(ABC):
    """One model; the fields of a subclass are the options of its YAML file.

    Attributes:
        name: what result rows call it; the name of its YAML file.
        classes, channels: of the dataset it is used with.
        weights: a local path, an http(s) or file URL, ``package:FILE`` for a packaged file, or
            ``random`` for seeded initial weights (tests and benchmarks only).
        sha256: of the weight file; required for a URL.
        feature_layer: the module whose input is the penultimate feature; default the last Linear.
        recipe: how ``python -m progip train`` trains it.
    """

    name: str
    classes: int = 10
    channels: int = 3
    weights: str | None = None
    sha256: str | None = None
    feature_layer: str | None = None
    recipe: Recipe = field(default_factory=Recipe)

    @abstractmethod
    def network(self) -> nn.Module:
        """The freshly initialised architecture, every activation, pool and reshape a module."""
