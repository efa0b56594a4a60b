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
        nan_policy: a NaN becomes 0 (``zero``), b (``bound``) or stays (``propagate``). A bound
            that is NaN bounds nothing: every value is beyond it.

    Returns:
        the outputs, and which of y were beyond their bound, or NaN and replaced (bool).
    """
    within = y <= bound
    absent = torch.isnan(y)
    if replacement == "clamp":
        result = torch.where(within, y, bound)
    elif replacement == "zero":
        result = torch.where(within, y, 0.0)
    else:  # infinity times a zero is NaN
        result = torch.where(torch.isinf(y), 0.0, y * torch.sigmoid(slope * (bound - y)))
    if nan_policy == "propagate":
        return torch.where(absent, y, result), ~(within | absent)
    result = torch.where(absent, bound if nan_policy == "bound" else 0.0, result)
    return torch.nan_to_num(result, nan=0.0, posinf=INFINITY, neginf=-INFINITY), ~within
