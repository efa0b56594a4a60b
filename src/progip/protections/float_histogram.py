"""Quantiles of a stream of float32 values of any size, in fixed memory."""

import torch
from torch import Tensor

_KEPT = 18  # leading bits of a float32: sign, exponent and 9 bits of the mantissa
_DROPPED = 32 - _KEPT


class FloatHistogram:
    """Counts values by their leading bits: bins are at most 2^-9 of their value wide.

    No range need be known beforehand, and no value is sampled.
    """

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(1 << _KEPT, dtype=torch.int64, device=device)

    def add(self, values: Tensor) -> None:
        """Count finite float32 values of any shape."""
        bins = _ordered(values.detach().reshape(-1).view(torch.int32)) >> _DROPPED
        offset = 1 << (_KEPT - 1)
        self.counts += torch.bincount(bins + offset, minlength=len(self.counts))

    def quantile(self, share: float, *, upper: bool = True) -> float:
        """The smallest bin that, with all below it, holds ``share`` of the values.

        Args:
            share: in [0, 1].
            upper: give the bin's largest value, else its smallest.
        """
        cumulative = self.counts.cumsum(0)
        wanted = torch.tensor(max(share * int(cumulative[-1]), 1), dtype=torch.float64)
        found = int(torch.searchsorted(cumulative.cpu().double(), wanted))
        edge = (found - (1 << (_KEPT - 1))) << _DROPPED
        edge += (1 << _DROPPED) - 1 if upper else 0
        return _ordered(torch.tensor([edge], dtype=torch.int32)).view(torch.float32).item()


def _ordered(bits: Tensor) -> Tensor:
    """Integers in the order of the floats with these bits; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
