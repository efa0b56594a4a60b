"""The exponential moving average of a network in training, by torch's ``AveragedModel``."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from progip.models.recipe import Recipe


class Average:
    """Follows a network in training; does nothing where the recipe asks for no average.

    As torchvision's reference script, but that ``ema_decay`` is taken as it is: parameters and
    buffers, every ``ema_steps`` steps, and during ``warm_up_epochs`` the network itself.
    """

    def __init__(self, recipe: Recipe, network: nn.Module) -> None:
        self._recipe = recipe
        self.model: AveragedModel | None = None
        if recipe.ema_decay:
            average = get_ema_multi_avg_fn(recipe.ema_decay)
            self.model = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def update(self, network: nn.Module, epoch: int, step: int, steps: int) -> None:
        """Take in the network after a step of an epoch that has so many, both counted from 0."""
        if self.model is None or (epoch * steps + step) % self._recipe.ema_steps:
            return
        self.model.update_parameters(network)
        if epoch < self._recipe.warm_up_epochs:
            self.model.n_averaged.fill_(0)

    def finish(self, network: nn.Module) -> None:
        """Put the average into the network, where there is one."""
        if self.model is not None:
            network.load_state_dict(self.model.module.state_dict())

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty where there is no average."""
        return {} if self.model is None else self.model.state_dict()

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what ``state`` gave."""
        if self.model is not None:
            self.model.load_state_dict(state)
