"""Bounds learnt by gradient descent on training images; nothing else of the network moves."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, positions of their images) -> a number


def train_epoch(
    network: nn.Module,
    bounds: Collection[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    loss: Loss,
    *,
    batch_size: int,
    seed: int,
) -> None:
    """One pass over the images in an order that the seed gives; bounds stay at 0 or above.

    The network stays in evaluation mode, so batch statistics do not move.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    learnt = list(bounds)
    for bound in learnt:
        bound.requires_grad_(True)
    for part in order.split(batch_size):
        with torch.enable_grad():
            value = loss(network(images[part]), part)
        gradients = torch.autograd.grad(value, learnt, allow_unused=True)
        for bound, gradient in zip(learnt, gradients, strict=True):
            bound.grad = gradient
        optimiser.step()
        with torch.no_grad():
            for bound in learnt:
                bound.clamp_(min=0)
    for bound in learnt:
        bound.requires_grad_(False)
        bound.grad = None
