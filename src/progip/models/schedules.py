"""The learning rate of every step, as a function of epoch and step alone."""

import math
from functools import lru_cache
from typing import Protocol

import torch
from torch.optim import lr_scheduler

#: where a one-cycle schedule starts and ends, as parts of its peak (torch's OneCycleLR)
CYCLE_START = 1 / 25
CYCLE_END = CYCLE_START / 1e4


class Scheduled(Protocol):
    """What is read of ``progip.models.recipe.Recipe``."""

    epochs: int
    learning_rate: float
    schedule: str
    milestones: list[int]
    gamma: float
    warm_up: float
    every: int
    warm_up_epochs: int
    warm_up_factor: float
    final_learning_rate: float


def learning_rate_at(recipe: Scheduled, epoch: int, step: int = 0, steps: int = 1) -> float:
    """The learning rate of a step of an epoch that has so many, both counted from 0."""
    if recipe.schedule == "one_cycle":
        return _cycle(recipe, epoch * steps + step, recipe.epochs * steps)
    if recipe.schedule == "cosine":
        if recipe.warm_up_epochs or recipe.final_learning_rate:
            return _warmed_cosine(
                recipe.learning_rate,
                recipe.epochs,
                recipe.warm_up_epochs,
                recipe.warm_up_factor,
                recipe.final_learning_rate,
            )[epoch]
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    if recipe.every:
        return _every(recipe.learning_rate, recipe.epochs, recipe.every, recipe.gamma)[epoch]
    return recipe.learning_rate * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)


def _cycle(recipe: Scheduled, step: int, steps: int) -> float:
    peak, top, last = recipe.learning_rate, recipe.warm_up * steps - 1, steps - 1
    if step < top:
        return peak * (CYCLE_START + (1 - CYCLE_START) * step / top)
    return peak * (1 + (CYCLE_END - 1) * (step - top) / (last - top))


def _optimiser(rate: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def _rates(
    optimiser: torch.optim.SGD, scheduler: lr_scheduler.LRScheduler, epochs: int
) -> list[float]:
    found = []
    for _ in range(epochs):
        found.append(float(optimiser.param_groups[0]["lr"]))
        optimiser.step()
        scheduler.step()
    return found


@lru_cache
def _every(rate: float, epochs: int, every: int, gamma: float) -> list[float]:
    optimiser = _optimiser(rate)
    return _rates(optimiser, lr_scheduler.StepLR(optimiser, every, gamma), epochs)


@lru_cache
def _warmed_cosine(
    rate: float, epochs: int, warm_up: int, factor: float, final: float
) -> list[float]:
    """As torchvision's reference script: ``LinearLR``, then ``CosineAnnealingLR``."""
    optimiser = _optimiser(rate)
    cosine = lr_scheduler.CosineAnnealingLR(optimiser, epochs - warm_up, final)
    if not warm_up:
        return _rates(optimiser, cosine, epochs)
    linear = lr_scheduler.LinearLR(optimiser, factor, total_iters=warm_up)
    both = lr_scheduler.SequentialLR(optimiser, [linear, cosine], [warm_up])
    return _rates(optimiser, both, epochs)
