"""Networks small enough for exhaustive and slow checks."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class TinyBlock(nn.Module):
    """A residual block, so that tensors have several consumers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm(self.conv(x)))


def tiny_network(classes: int = 4, channels: int = 3, seed: int = 0) -> nn.Module:
    """Convolution, residual block, pool, head; 8x8 input."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.ReLU(),
            TinyBlock(4),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, classes),
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval().requires_grad_(False)


def balanced_network(images: Tensor) -> nn.Module:
    """``tiny_network`` of 4 classes whose head gives each of them to many of the images."""
    network = tiny_network()
    feature = network[:-1](images)
    network[-1].weight.copy_(torch.eye(4) / feature.std(0))
    network[-1].bias.copy_(-feature.mean(0) / feature.std(0))
    return network


def labelled(batches: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Batches as a protection is fitted to them, all of class 0."""
    return [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in batches]
