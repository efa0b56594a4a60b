"""What becomes of the outputs of a ReLU that are beyond their bound."""

import torch
from torch import Tensor

INFINITY = float("inf")
REPLACEMENTS = ("zero", "clamp", "soft_zero")
NAN_POLICIES = ("zero", "bound", "propagate")


def bounded(
    y: Tensor, bound: Tensor, replacement: str, slope: float, nan_policy: str
) -> tuple[Tensor, Tensor]:
    """Outputs of a ReLU with values beyond the bound replaced.

    Args:
        y: (n, ...) what the ReLU gave: not negative, or NaN.
        bound: b, whose shape broadcasts to that of one row.
        replacement: ``zero``: y where y <= b, else 0; ``clamp``: min(y, b); ``soft_zero``:
            y sigmoid(slope (b - y)), which has half its value at b and a derivative to b.
        nan_policy: a NaN becomes 0 (``zero``), b (``bound``) or stays (``propagate``). Every
            value is beyond a bound that is NaN, and becomes 0.

    Returns:
        the outputs, and which of y were beyond their bound, or NaN and replaced (bool).
    """
    within = y <= bound  # false for NaN
    if replacement == "zero":
        result = torch.where(within, y, 0.0)
    elif replacement == "clamp":
        result = _nan_is_zero(torch.minimum(y, bound))
    else:  # infinity times a zero is NaN
        result = _nan_is_zero(y * torch.sigmoid(slope * (bound - y)))
    if nan_policy == "zero":
        return result, ~within
    absent = torch.isnan(y)
    if nan_policy == "bound":
        return torch.where(absent, _nan_is_zero(bound), result), ~within
    return torch.where(absent, y, result), ~(within | absent)


def _nan_is_zero(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=INFINITY, neginf=-INFINITY)
