"""What the differences between neighbouring neurons may be."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode


class RowConstant:
    """A constant (*shape of one row, or of size 1), ready in the memory order of any rows.

    Arithmetic between tensors of two memory orders is slow.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._in_order: dict[tuple[int, ...], Tensor] = {}

    def like(self, rows: Tensor) -> Tensor:
        """Of the order of rows (n, ...)."""
        # a graph would hold the copying, but only the first time
        if self._values.shape != rows.shape[1:] or get_proxy_mode() is not None:
            return self._values
        order = rows.stride()[1:]
        if order not in self._in_order:
            empty = torch.empty_like(rows[0], dtype=self._values.dtype)
            self._in_order[order] = empty.copy_(self._values)
        return self._in_order[order]


@dataclass
class Limits:
    """Of one layer: a difference is anomalous further than ``half`` from ``centre``, None for 0."""

    centre: RowConstant | None
    half: RowConstant

    def anomalous(self, differences: Tensor, gate: Tensor | None) -> Tensor:
        """Which differences (n, ...) are anomalous, none in rows whose gate (n, 1, ...) is 0.

        Overwrites them: fresh memory costs more than the arithmetic.
        """
        if self.centre is not None:
            differences = differences.sub_(self.centre.like(differences))
        differences = differences.abs_()
        if gate is not None:
            differences = differences.mul_(gate)  # an infinite one becomes NaN: above nothing
        return differences > self.half.like(differences)
