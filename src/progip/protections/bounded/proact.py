"""ProAct: bounds are drawn in one after the other, as far as the accuracy allows."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progip.described import WORKS
from progip.protections.bounded.base import BoundedActivation, Bounds, bound_parameters
from progip.protections.bounded.clock import Clock
from progip.protections.bounded.data import BATCH, SearchData
from progip.protections.bounded.learning import train_epoch
from progip.protections.bounded.profile import maxima
from progip.protections.bounded.sites import relu_calls
from progip.storage.whole_files import Checkpoint

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ProAct(BoundedActivation):
    """Bounds are trained one ReLU at a time, from the last to the first, with distillation.

    Source: Mousavi et al.: ProAct, 2024, with the constants of
    the RReLU toolbox. The last ReLU has a bound for every neuron, each other one for all. Loss:
    cross-entropy + cross-entropy to the classes' probabilities that the unprotected network gives.
    It is the weight decay that draws bounds in. After every epoch the bounds are kept if at most
    ``tolerance`` of the unprotected network's accuracy on the validation images is lost; else the
    kept ones are put back, and the next, weaker decay is tried.

    Attributes:
        decays: weight decays of Adam, tried in this order for every ReLU.
        epochs: at most so many with each.
        warm_up: epochs in which the rate rises, before it falls by a cosine.
        batch_size: images of a step.
        learning_rate: the largest.
        tolerance: accuracy that may be lost, in points of percent.
    """

    sentence: ClassVar[str] = (
        "ProAct learns the bounds of ReLUs one after the other, from the last to the first, by "
        "distillation from the unprotected network, as far as its accuracy allows [ProAct]."
    )
    references: ClassVar[Mapping[str, str]] = {"ProAct": WORKS["ProAct"]}

    replacement: str = "soft_zero"
    granularity: str = "hybrid"
    decays: list[float] = field(default_factory=lambda: [4 * 10.0**-n for n in range(5, 16)])
    epochs: int = 105
    warm_up: int = 5
    batch_size: int = 128
    learning_rate: float = 0.01
    tolerance: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("epochs", "batch_size"):
            self._must(key, getattr(self, key) >= 1, "must be at least 1")
        self._must("warm_up", self.warm_up >= 0, "must not be negative")
        self._must("learning_rate", self.learning_rate > 0, "must be above 0")
        self._must("tolerance", self.tolerance >= 0, "must not be negative")
        sound = bool(self.decays) and min(self.decays) >= 0
        self._must("decays", sound, "must be at least one, none negative")
        soft = self.replacement == "soft_zero"
        self._must("replacement", soft, "has no gradient to learn by; give soft_zero")
        self._must("validation", self.validation >= 1, "must be at least 1: they guard accuracy")

    def search(self, network: nn.Module, data: SearchData, checkpoint: Checkpoint) -> Bounds:
        calls = relu_calls(self.name, network, data.pair)
        guarded = self.with_bounds(network, maxima(network, calls, data.images, self.granularity))
        bounds = bound_parameters(guarded)
        least = data.accuracy(network) - self.tolerance
        if data.accuracy(guarded) < least:
            log.warning(
                "protection %s: with the largest clean outputs as bounds the accuracy is %.2f %%, "
                "more than %g points below that of the unprotected network already",
                self.name, data.accuracy(guarded), self.tolerance,
            )  # fmt: skip
        loss = _distilling(network, data)
        found = checkpoint.load() or {"step": 0}
        for call, kept in zip(calls, found.get("bounds", ()), strict=False):
            bounds[call].copy_(kept)
        steps = [(call, decay) for call in reversed(calls) for decay in self.decays]
        clock = Clock(found["step"], len(steps))
        for step in range(found["step"], len(steps)):
            call, decay = steps[step]
            accuracy = self._drawn_in(guarded, bounds[call], decay, loss, data, least, step)
            values = [bounds[c].detach().clone() for c in calls]
            checkpoint.save({"step": step + 1, "bounds": values})
            if (step + 1) % len(self.decays) == 0:
                log.info(
                    "protection %s: bound %d of %d, '%s': mean %.4g, accuracy %.2f %%, %s",
                    self.name, (step + 1) // len(self.decays), len(calls), call[0],
                    bounds[call].mean(), accuracy, clock.left(step + 1),
                )  # fmt: skip
        return {call: bounds[call].detach() for call in calls}

    def _drawn_in(
        self,
        guarded: nn.Module,
        bound: nn.Parameter,
        decay: float,
        loss: "Distilling",
        data: SearchData,
        least: float,
        step: int,
    ) -> float:
        """Train one bound with one decay; the accuracy of what is kept."""
        optimiser = torch.optim.Adam([bound], weight_decay=decay)
        kept = bound.detach().clone()
        accuracy = data.accuracy(guarded)
        for epoch in range(self.epochs):
            optimiser.param_groups[0]["lr"] = self._rate(epoch)
            train_epoch(
                guarded,
                [bound],
                optimiser,
                data.images,
                loss,
                batch_size=self.batch_size,
                seed=(self.seed << 40) + step * self.epochs + epoch,
            )
            reached = data.accuracy(guarded)
            if reached < least:
                bound.copy_(kept)
                break
            kept, accuracy = bound.detach().clone(), reached
        return accuracy

    def _rate(self, epoch: int) -> float:
        if epoch < self.warm_up:
            return self.learning_rate * (epoch + 1) / self.warm_up
        part = (epoch - self.warm_up) / max(1, self.epochs - self.warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


class Distilling:
    """Cross-entropy to the labels, and to the probabilities of the unprotected network."""

    def __init__(self, labels: Tensor, probabilities: Tensor) -> None:
        self._labels, self._probabilities = labels, probabilities

    def __call__(self, logits: Tensor, part: Tensor) -> Tensor:
        hard = F.cross_entropy(logits, self._labels[part])
        return hard + F.cross_entropy(logits, self._probabilities[part])


@torch.no_grad()
def _distilling(network: nn.Module, data: SearchData) -> Distilling:
    logits = torch.cat([network(part) for part in data.images.split(BATCH)])
    return Distilling(data.labels, logits.softmax(1))
