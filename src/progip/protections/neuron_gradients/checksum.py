"""Block 1: a linear or convolution output against its checksum, predicted from the input."""

import torch
from torch import Tensor, nn

CHECKSUMS = ("pixel", "sum", "off")
WEIGHTS = ("ones", "index")


class Checksum:
    """Sanity-Check (Ozen, Orailoglu, ATS 2019) for one module, on its own output with bias.

    With y = W x + b and weights v over the output neurons, C_L = sum_k v_k y_k must equal C_R =
    (sum_k v_k W_k) x + sum_k v_k b_k. For a convolution the encoded weights are one more filter a
    group, with the module's stride, padding, padding mode and dilation.

    W and b are encoded when this is made; a later fault in them shows. The encoded filter is
    applied in float32 as the layer is: in float64 it would cost ten times the layer, and would
    only halve the clean differences. Everything else is float64.

    Args:
        module: ``nn.Linear`` or ``nn.Conv1d``, ``2d``, ``3d``.
        weights: v is 1 for all (``ones``), or 1, 2, 3, ... (``index``), with which errors of equal
            size and opposite sign do not cancel.
        per_pixel: compare at every pixel; else the sums over all pixels (less to compare, more
            rounding).
    """

    def __init__(self, module: nn.Module, weights: str = "ones", per_pixel: bool = True) -> None:
        assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        self.module, self.per_pixel = module, per_pixel
        self.groups = 1 if isinstance(module, nn.Linear) else module.groups
        rows = module.weight.detach().double()
        self.v = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        if weights == "index":
            self.v = self.v.cumsum(0)
        self.filter = self._encoded(rows)
        self.bias = None if module.bias is None else self._encoded(module.bias.detach().double())
        self.plain = weights == "ones"

    def _encoded(self, rows: Tensor) -> Tensor:
        weighted = rows * self.v.view(-1, *[1] * (rows.dim() - 1))
        return weighted.unflatten(0, (self.groups, -1)).sum(1)

    @torch.no_grad()
    def deviation(self, x: Tensor, y: Tensor) -> Tensor:
        """|C_L - C_R|, float64: (n, ..., 1) of a linear layer, (n, groups, *pixels) or, summed
        over pixels, (n, groups, 1) of a convolution. NaN where a value is NaN."""
        if isinstance(self.module, nn.Linear):
            predicted = (x.double() * self.filter[0]).sum(-1, keepdim=True)
            if self.bias is not None:
                predicted = predicted + self.bias
            return ((y.double() * self.v).sum(-1, keepdim=True) - predicted).abs()
        bias = None if self.bias is None else self.bias.to(x.dtype)
        predicted = self.module._conv_forward(x, self.filter.to(x.dtype), bias)
        if not self.plain:
            y = y.double() * self.v.view(-1, *[1] * (y.dim() - 2))
        apart = y.unflatten(1, (self.groups, -1)).sum(2, dtype=torch.float64) - predicted
        return (apart if self.per_pixel else apart.flatten(2).sum(2, keepdim=True)).abs()
