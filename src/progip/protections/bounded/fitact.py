"""FitAct: a bound for every neuron, learnt with the rest of the network frozen."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progip.described import WORKS
from progip.protections.bounded.base import BoundedActivation, Bounds, bound_parameters
from progip.protections.bounded.clock import Clock
from progip.protections.bounded.data import SearchData
from progip.protections.bounded.learning import train_epoch
from progip.protections.bounded.profile import maxima
from progip.protections.bounded.sites import relu_calls
from progip.storage.whole_files import Checkpoint

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class FitAct(BoundedActivation):
    """Bounds begin as Ranger's and are trained; weights and batch statistics do not move.

    Source: Ghavami, Sadati, Fang, Shannon: FitAct, DATE 2022, with the constants of the RReLU
    toolbox. Loss: cross-entropy + penalty x sum over layers of mean(b^2). Adam, rate to 0 by a
    cosine over the epochs.

    Attributes:
        epochs: of training.
        batch_size: images of a step.
        learning_rate: at the beginning.
        weight_decay: of Adam.
        penalty: on the squares of the bounds.
    """

    sentence: ClassVar[str] = (
        "FitAct gives every neuron a bound, learnt on training images with all weights frozen; "
        "beyond it outputs fall smoothly to zero [FitAct]."
    )
    references: ClassVar[Mapping[str, str]] = {"FitAct": WORKS["FitAct"]}

    replacement: str = "soft_zero"
    granularity: str = "neuron"
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 4e-11
    penalty: float = 4e-11

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("epochs", "batch_size"):
            self._must(key, getattr(self, key) >= 1, "must be at least 1")
        self._must("learning_rate", self.learning_rate > 0, "must be above 0")
        for key in ("weight_decay", "penalty"):
            self._must(key, getattr(self, key) >= 0, "must not be negative")
        soft = self.replacement == "soft_zero"
        self._must("replacement", soft, "has no gradient to learn by; give soft_zero")

    def search(self, network: nn.Module, data: SearchData, checkpoint: Checkpoint) -> Bounds:
        calls = relu_calls(self.name, network, data.pair)
        start = maxima(network, calls, data.images, self.granularity)
        guarded = self.with_bounds(network, start)
        bounds = bound_parameters(guarded)
        optimiser = torch.optim.Adam(bounds.values(), weight_decay=self.weight_decay)
        found = checkpoint.load() or {"epoch": 0}
        if found["epoch"]:
            for bound, kept in zip(bounds.values(), found["bounds"], strict=True):
                bound.copy_(kept)
            optimiser.load_state_dict(found["optimiser"])

        def loss(logits: Tensor, part: Tensor) -> Tensor:
            squares = torch.stack([bound.square().mean() for bound in bounds.values()]).sum()
            return F.cross_entropy(logits, data.labels[part]) + self.penalty * squares

        clock = Clock(found["epoch"], self.epochs)
        for epoch in range(found["epoch"], self.epochs):
            optimiser.param_groups[0]["lr"] = (
                self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
            )
            train_epoch(
                guarded,
                bounds.values(),
                optimiser,
                data.images,
                loss,
                batch_size=self.batch_size,
                seed=self.seed * self.epochs + epoch,
            )
            values = [bound.detach().clone() for bound in bounds.values()]
            checkpoint.save(
                {"epoch": epoch + 1, "bounds": values, "optimiser": optimiser.state_dict()}
            )
            kept = f", accuracy {data.accuracy(guarded):.2f} %" if len(data.validation) else ""
            mean = torch.cat([bound.flatten() for bound in bounds.values()]).mean()
            log.info(
                "protection %s: epoch %d of %d, mean bound %.4g%s, %s",
                self.name, epoch + 1, self.epochs, mean, kept, clock.left(epoch + 1),
            )  # fmt: skip
        return {call: bounds[call].detach() for call in calls}
