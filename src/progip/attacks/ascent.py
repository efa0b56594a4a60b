"""Signed gradient ascent within a ball: the inner loop of training and of attacks of our own."""

from collections.abc import Callable

import torch
from torch import Tensor


def sign_ascent(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
) -> Tensor:
    """Images that make the objective large, none further than ``epsilon`` from the given ones.

    x <- clip(x + step * sign(d objective / d x)) onto the ball of largest changes and [0, 1]
    (Madry et al., ICLR 2018, section 2.1).

    Args:
        objective: (n, ...) to a scalar, as a sum over images: each has its own gradient.
        images, start: in [0, 1], of the same shape.
        epsilon, step: in units of the pixel range.
    """
    lowest, highest = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    found = torch.clamp(start, lowest, highest).detach()
    for _ in range(steps):
        found.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(found), found)
        found = torch.clamp(found.detach() + step * gradient.sign(), lowest, highest)
    return found.detach()
