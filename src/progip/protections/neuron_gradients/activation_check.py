"""Block 2: an activation's output against its input."""

import torch
from torch import Tensor, nn

ACTIVATION_CHECKS = ("exact", "literal", "none")
TOLERANCE = 1e-6  # of the remainder; the source says only "a threshold"


@torch.no_grad()
def exact_deviation(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """|y - activation(x)|, computed a second time; NaN where either is NaN."""
    again: Tensor = module.forward(x)
    return again.sub_(y).abs_()


@torch.no_grad()
def remainder(x: Tensor, y: Tensor) -> Tensor:
    """|y mod x| of a ReLU, which is 0 for y = max(0, x); |y| where x is 0.

    The literal check of the source. It misses whatever leaves y a multiple of x: most errors of
    exponent bits, all of the sign, a ReLU that was skipped.
    """
    return torch.where(x == 0, y, torch.fmod(y, x)).abs()
