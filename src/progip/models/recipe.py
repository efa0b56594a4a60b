"""How a network is trained: the options of a model's ``recipe:`` block."""

import logging
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from progip.errors import ProgipError
from progip.models.schedules import learning_rate_at

log = logging.getLogger(__name__)

SCHEDULES = ("steps", "cosine", "one_cycle")
OPTIMISERS = ("sgd", "adamw")
STARTS = ("scratch", "weights")
PRECISIONS = ("float32", "bfloat16", "auto")
#: options that the first training files did not have yet
_LATER = (
    "warm_up", "decay_norms", "precision", "scales", "scale_milestones", "channels_last", "fused",
    "optimiser", "every", "warm_up_epochs", "warm_up_factor", "final_learning_rate", "mixup",
    "cutmix", "erase", "trivial_augment", "clip_gradient", "ema_decay", "ema_steps", "start",
    "freeze_backbone",
)  # fmt: skip


@dataclass(kw_only=True)
class Recipe:
    """How a network is trained; the recipe of each model's YAML is the published one.

    Attributes:
        epochs, batch_size: passes over the training set, images a step.
        learning_rate, momentum, nesterov, weight_decay: of stochastic gradient descent.
        optimiser: ``sgd`` or ``adamw``, which has no ``momentum`` and no ``nesterov``.
        schedule: ``steps`` multiplies the learning rate by ``gamma`` at each of ``milestones``
            (epochs), or ``every`` so many epochs; ``cosine`` lowers it to ``final_learning_rate``
            over all epochs, after ``warm_up_epochs`` in which it rises linearly from
            ``warm_up_factor`` of itself; ``one_cycle`` changes it with
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
        mixup, cutmix: alpha of the beta distribution that images and targets are mixed by; of both
            one is drawn for each batch (torchvision's ``MixUp``, ``CutMix``). 0 = none.
        erase: probability of erasing a rectangle of an image (``RandomErasing``).
        trivial_augment: one random change of each image (``TrivialAugmentWide``).
        clip_gradient: largest norm of all gradients together; 0 = any.
        ema_decay, ema_steps: the finished network is the exponential moving average of the trained
            one, which takes in every so many steps (``AveragedModel``); decay 0 = no average.
            During ``warm_up_epochs`` it is the trained one.
        start: ``scratch``, or from ``weights``: those of ``model.weights``, without the last layer
            where ``model.head`` replaces it.
        freeze_backbone: train the last layer or head alone, on features that are computed once.
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
    optimiser: str = "sgd"
    every: int = 0
    warm_up_epochs: int = 0
    warm_up_factor: float = 0.01
    final_learning_rate: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    trivial_augment: bool = False
    clip_gradient: float = 0.0
    ema_decay: float = 0.0
    ema_steps: int = 32
    start: str = "scratch"
    freeze_backbone: bool = False

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
        rules |= {
            "optimiser": (self.optimiser in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}"),
            "every": (self.every >= 0, "0 or more epochs"),
            "warm_up_epochs": (0 <= self.warm_up_epochs < self.epochs, "in [0, recipe.epochs)"),
            "warm_up_factor": (0 < self.warm_up_factor <= 1, "in (0, 1]"),
            "final_learning_rate": (
                0 <= self.final_learning_rate <= self.learning_rate,
                "in [0, recipe.learning_rate]",
            ),
            **{name: (getattr(self, name) >= 0, "0 or more") for name in ("mixup", "cutmix")},
            "erase": (0 <= self.erase <= 1, "in [0, 1]"),
            "clip_gradient": (0 <= self.clip_gradient < math.inf, "0 or more"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
            "ema_steps": (self.ema_steps >= 1, "at least 1"),
            "start": (self.start in STARTS, f"one of {', '.join(STARTS)}"),
            "freeze_backbone": (
                not self.freeze_backbone or self.start == "weights",
                "false where recipe.start=scratch: an untrained backbone is worth nothing",
            ),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ProgipError(f"recipe.{name} must be {wanted}, not {getattr(self, name)}")
        if self.schedule != "steps" and self.milestones:
            raise ProgipError(
                f"recipe.milestones has no effect with schedule={self.schedule}; leave it empty"
            )
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuse options that nothing would read."""
        steps, cosine = self.schedule == "steps", self.schedule == "cosine"
        read = {
            "every": (steps and not self.milestones, "with schedule=steps without milestones"),
            "warm_up_epochs": (cosine, "with schedule=cosine"),
            "final_learning_rate": (cosine, "with schedule=cosine"),
        }
        if self.freeze_backbone:
            wrong = (False, "where images change: with freeze_backbone their features are constant")
            changing = ("crop_padding", "flip", "mixup", "cutmix", "erase", "trivial_augment")
            read |= dict.fromkeys(changing, wrong)
            read["scale_milestones"] = wrong
        for name, (reads, where) in read.items():
            if getattr(self, name) and not reads:
                raise ProgipError(
                    f"recipe.{name}={getattr(self, name)} has an effect only {where}; leave it out"
                )

    def learning_rate_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """The learning rate of a step of an epoch that has so many, both counted from 0."""
        return learning_rate_at(self, epoch, step, steps)

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

    def new_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """For what the network trains; ``learning_rate_at`` is for the caller."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": parameters}]
        if not self.decay_norms:  # scales, shifts and biases are vectors
            groups = [{"params": [p for p in parameters if p.ndim > 1]}]
            vectors = [p for p in parameters if p.ndim <= 1]
            groups.append({"params": vectors, "weight_decay": 0.0})
        shared: dict[str, Any] = {
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
            "fused": self.fused or None,
        }
        if self.optimiser == "adamw":
            return torch.optim.AdamW(groups, **shared)
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov, **shared)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Within it a forward pass computes in the recipe's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


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
