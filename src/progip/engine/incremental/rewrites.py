"""Cheaper forms of operations; each is used only where it gives the same bits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.graph import aten

Function = Callable[..., Any]


def cheaper(target: Any, args: tuple[Any, ...]) -> Function | None:
    """Another function of the same arguments, if one is known that may equal the operation.

    Args:
        target: the operation.
        args: its arguments; tensors where they are constants.
    """
    if target is aten.native_batch_norm_backward.default and not args[7]:
        return _batch_norm_backward(args)
    return None


def _batch_norm_backward(args: tuple[Any, ...]) -> Function | None:
    """In evaluation mode a scale for each channel; the operator also makes unused sums."""
    _, _, _, _, variance, _, _, _, epsilon, mask = args
    if list(mask) != [True, False, False] or not isinstance(variance, Tensor):
        return None
    return ChannelScale((1 / torch.sqrt(variance.double() + epsilon)).to(variance.dtype))


@dataclass(frozen=True)
class ChannelScale:
    """The gradient of batch normalisation in evaluation mode; the other arguments do not matter."""

    inverse: Tensor

    def __call__(
        self, gradient: Tensor, _: Any, weight: Tensor | None, *__: Any
    ) -> tuple[Tensor, None, None]:
        shape = (1, -1) + (1,) * (gradient.dim() - 2)
        result = gradient * self.inverse.view(shape)
        return result if weight is None else result.mul_(weight.view(shape)), None, None


def positive(value: Tensor) -> Tensor:
    """``not value <= 0``, so true for NaN; numpy does it several times faster than torch."""
    if value.device.type != "cpu":
        return (value <= 0).logical_not_()
    below = np.less_equal(value.numpy(), 0)
    return torch.from_numpy(np.logical_not(below, out=below))


def gated(gradient: Tensor, passes: Tensor) -> Tensor:
    """``threshold_backward`` at 0 by the same kernel, from what ``positive`` kept."""
    return aten.threshold_backward.default(gradient, passes.view(torch.uint8).to(gradient.dtype), 0)
