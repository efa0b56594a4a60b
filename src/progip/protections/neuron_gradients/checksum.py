"""Block 1: a linear or convolution output against its checksum, predicted from the input."""

import torch
from torch import Tensor, nn

from progip.protections.neuron_gradients.limits import RowConstant

CHECKSUMS = ("pixel", "sum", "none")
WEIGHTS = ("ones", "index")


class Checksum:
    """Sanity-Check (Ozen, Orailoglu, ATS 2019) for one module, on its own output with bias.

    With y = W x + b and weights v over the output neurons, C_L = sum_k v_k y_k must equal C_R =
    (sum_k v_k W_k) x + sum_k v_k b_k. For a convolution the encoded weights are one more filter a
    group, with the module's stride, padding, padding mode and dilation.

    Per pixel that filter is applied, in float32 as the layer is: in float64 it would cost ten times
    the layer, and would only halve the clean deviation. Summed over pixels, C_R is linear in x with
    fixed coefficients, one for each input: a product with x replaces the convolution.

    W and b are encoded when this is made; a later fault in them shows.

    Args:
        module: ``nn.Linear`` or ``nn.Conv1d``, ``2d``, ``3d``.
        weights: v is 1 for all (``ones``), or 1, 2, 3, ... (``index``), with which errors of equal
            size and opposite sign do not cancel.
        per_pixel: compare a convolution at every pixel of every group; else one sum for each image,
            cheaper, with more rounding.
    """

    def __init__(self, module: nn.Module, weights: str = "ones", per_pixel: bool = True) -> None:
        assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        self.module, self.per_pixel = module, per_pixel
        self.groups = 1 if isinstance(module, nn.Linear) else module.groups
        rows = module.weight.detach().double()
        self.v = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        if weights == "index":
            self.v = self.v.cumsum(0)
        self.plain = weights == "ones"
        self.filter = self._encoded(rows)
        bias = torch.zeros_like(self.v) if module.bias is None else module.bias.detach().double()
        self.bias = self._encoded(bias)
        self._coefficients: dict[torch.Size, RowConstant] = {}

    def _encoded(self, rows: Tensor) -> Tensor:
        weighted = rows * self._over_channels(rows)
        return weighted.unflatten(0, (self.groups, -1)).sum(1)

    def _over_channels(self, like: Tensor) -> Tensor:
        """v with as many axes behind it as the tensor has behind its first."""
        return self.v.view(-1, *[1] * (like.dim() - 1))

    @torch.no_grad()
    def deviation(self, x: Tensor, y: Tensor) -> Tensor:
        """|C_L - C_R|, float64, NaN where a value is NaN.

        Returns:
            (n, ..., 1) of a linear layer, (n, groups, *pixels) or (n, 1) of a convolution.
        """
        if isinstance(self.module, nn.Linear):
            predicted = (x.double() * self.filter[0]).sum(-1, keepdim=True) + self.bias
            return ((y.double() * self.v).sum(-1, keepdim=True) - predicted).abs()
        if not self.per_pixel:
            actual = y if self.plain else y * self._over_channels(y[0]).to(y.dtype)
            constant = self.bias.sum() * y[0, 0].numel()
            return (_total(actual) - _total(x * self.coefficients(x)) - constant).abs()
        bias = self.bias.to(x.dtype)
        predicted = self.module._conv_forward(x, self.filter.to(x.dtype), bias)
        actual = y if self.plain else y.double() * self._over_channels(y[0])
        summed = actual.unflatten(1, (self.groups, -1)).sum(2, dtype=torch.float64)
        return (summed - predicted).abs()

    def coefficients(self, x: Tensor) -> Tensor:
        """d (sum over pixels of the encoded convolution) / d x, (*shape of one row)."""
        shape = x.shape[1:]
        if shape not in self._coefficients:
            assert isinstance(self.module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            with torch.enable_grad():
                zero = torch.zeros(1, *shape, dtype=torch.float64, device=x.device)
                zero.requires_grad_()
                total = self.module._conv_forward(zero, self.filter, None).sum()
                (slope,) = torch.autograd.grad(total, zero)
            self._coefficients[shape] = RowConstant(slope[0].to(x.dtype))
        return self._coefficients[shape].like(x)


def _total(values: Tensor) -> Tensor:
    """(n, 1) float64 sums of (n, ...).

    In float64 throughout: float32 partial sums would depend on the memory order, and thresholds
    that were fitted in one order would not hold in the other.
    """
    return values.flatten(1).sum(1, keepdim=True, dtype=torch.float64)
