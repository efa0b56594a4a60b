"""How a network is trained from scratch: the options of a model's ``recipe:`` block."""

import logging
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from progip.errors import ProgipError

log = logging.getLogger(__name__)

SCHEDULES = ("steps", "cosine", "one_cycle")
PRECISIONS = ("float32", "bfloat16", "auto")
#: where a one-cycle schedule starts and ends, as parts of its peak (torch's OneCycleLR)
CYCLE_START = 1 / 25
CYCLE_END = CYCLE_START / 1e4
#: options that the first training files did not have yet
_LATER = (
    "warm_up", "decay_norms", "precision", "scales", "scale_milestones", "channels_last", "fused",
)  # fmt: skip


@dataclass(kw_only=True)
class Recipe:
    """How a network is trained from scratch; the recipe of each model's YAML is the published one.

    Attributes:
        epochs, batch_size: passes over the training set, images a step.
        learning_rate, momentum, nesterov, weight_decay: of stochastic gradient descent.
        schedule: ``steps`` multiplies the learning rate by ``gamma`` at each of ``milestones``
            (epochs); ``cosine`` lowers it to 0 over all epochs; ``one_cycle`` changes it with
            every step: up to ``learning_rate``, then down to nearly 0, both linearly (Smith,
            Topin, Super-convergence, 2019; the momentum stays).
        warm_up: share of the steps in which ``one_cycle`` rises.
        decay_norms: False: the weight decay spares batch normalisation and biases.
        label_smoothing: share of the target spread evenly over all classes.
        crop_padding: random crops out of images padded with black by this many pixels; 0 = none.
        flip: mirror every image left to right with probability 1/2.
        precision: ``float32``; ``bfloat16`` computes matrix products and convolutions in that
            type, weights and their updates stay float32; ``auto`` is ``bfloat16`` where the
            processor or GPU has instructions for it and ``float32`` elsewhere.
        scales: the images' sides in each stage of the training, as parts of their own; the last
            is 1 (progressive resizing: Howard, DAWNBench, 2018).
        scale_milestones: the epochs at which the second, third, ... of ``scales`` begins.
        channels_last: memory format of network and images.
        fused: update all parameters in one call.
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
    warm_up: float = 0.3
    decay_norms: bool = True
    precision: str = "float32"
    scales: list[float] = field(default_factory=lambda: [1.0])
    scale_milestones: list[int] = field(default_factory=list)
    channels_last: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2 (batch normalisation)"),
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "milestones": (_rising(self.milestones), "positive epochs in rising order"),
            "gamma": (0 < self.gamma <= 1, "in (0, 1]"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "crop_padding": (self.crop_padding >= 0, "0 or more"),
            "warm_up": (0 <= self.warm_up < 1, "in [0, 1)"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "scales": (
                bool(self.scales)
                and all(0 < scale <= 1 for scale in self.scales)
                and self.scales[-1] == 1,
                "in (0, 1], the last of them 1: training ends at the images' own size",
            ),
            "scale_milestones": (
                _rising(self.scale_milestones)
                and len(self.scale_milestones) == len(self.scales) - 1
                and all(m < self.epochs for m in self.scale_milestones),
                f"positive epochs in rising order, one fewer than the {len(self.scales)} "
                f"recipe.scales, all below the {self.epochs} recipe.epochs",
            ),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ProgipError(f"recipe.{name} must be {wanted}, not {getattr(self, name)}")
        if self.schedule != "steps" and self.milestones:
            raise ProgipError(
                f"recipe.milestones has no effect with schedule={self.schedule}; leave it empty"
            )

    def learning_rate_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """The learning rate of a step of an epoch that has so many, both counted from 0."""
        if self.schedule == "one_cycle":
            return self._cycle(epoch * steps + step, self.epochs * steps)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.learning_rate * self.gamma ** sum(epoch >= m for m in self.milestones)

    def scale_at(self, epoch: int) -> float:
        """The images' sides in an epoch, counted from 0, as a part of their own."""
        return self.scales[sum(epoch >= m for m in self.scale_milestones)]

    def on(self, device: torch.device) -> "Recipe":
        """The same recipe with ``precision: auto`` replaced by what the device computes well."""
        if self.precision != "auto":
            return self
        precision = "bfloat16" if has_bfloat16(device) else "float32"
        log.info("precision: %s on this %s", precision, device.type)
        return replace(self, precision=precision)

    def recorded(self) -> dict[str, Any]:
        """The options as training files keep them.

        Later options are left out at their defaults, so that files from before stay valid.
        """
        later = _later_defaults()
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}

    def optimiser(self, network: nn.Module) -> torch.optim.SGD:
        """Stochastic gradient descent for the network; ``learning_rate_at`` is for the caller."""
        groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
        if not self.decay_norms:  # scales, shifts and biases are vectors
            groups = [{"params": [p for p in network.parameters() if p.ndim > 1]}]
            vectors = [p for p in network.parameters() if p.ndim <= 1]
            groups.append({"params": vectors, "weight_decay": 0.0})
        return torch.optim.SGD(
            groups,
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=self.fused or None,
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        """Within it a forward pass computes in the recipe's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _cycle(self, step: int, steps: int) -> float:
        peak, top, last = self.learning_rate, self.warm_up * steps - 1, steps - 1
        if step < top:
            return peak * (CYCLE_START + (1 - CYCLE_START) * step / top)
        return peak * (1 + (CYCLE_END - 1) * (step - top) / (last - top))


def completed(recorded: dict[str, Any]) -> dict[str, Any]:
    """Every option of a recipe as ``Recipe.recorded`` gave it, those it left out included."""
    return _later_defaults() | recorded


def has_bfloat16(device: torch.device) -> bool:
    """Does the device have instructions for bfloat16, so that it is faster than float32?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(value is True for name, value in found.items() if "bf16" in name)


def _later_defaults() -> dict[str, Any]:
    return {k: v for k, v in asdict(Recipe()).items() if k in _LATER}


def _rising(epochs: list[int]) -> bool:
    return all(a < b for a, b in zip([0, *epochs], epochs, strict=False))
