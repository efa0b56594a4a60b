"""Differences between neighbouring neurons, and which neurons anomalous ones point to."""

from collections.abc import Callable

import torch
from torch import Tensor

LOCATE = ("first_of_run", "all_flagged", "iterative")


def circular_differences(y: Tensor, axis: int) -> Tensor:
    """g[i] = y[i] - y[i - 1] along an axis, the last neuron being the neighbour of the first.

    The source's kernel [-1, 1, 0] with circular padding, slid as deep-learning libraries do.
    """
    return torch.roll(y, 1, axis).neg_().add_(y)  # one fresh tensor instead of two


def first_of_run(flagged: Tensor, axis: int) -> Tensor:
    """The first flag of every circular run of flags along an axis; all flags of a full circle."""
    return flagged & ~(torch.roll(flagged, 1, axis) & ~flagged.all(axis, keepdim=True))


def suppressed(
    y: Tensor, anomalous: Callable[[Tensor], Tensor], axis: int, locate: str, rounds: int
) -> Tensor:
    """Which values of y to zero, bool of its shape.

    Args:
        y: finite.
        anomalous: which differences are; may overwrite them.
        locate: ``all_flagged``, every neuron with an anomalous difference; ``first_of_run``, the
            first of each run of such neurons, since an error at i makes g[i] and g[i + 1]
            anomalous; ``iterative``, first_of_run again on what zeroing leaves.
        rounds: how often ``iterative`` looks.
    """
    flagged = anomalous(circular_differences(y, axis))
    if locate == "all_flagged":
        return flagged
    wrong = first_of_run(flagged, axis)
    for _ in range(rounds - 1 if locate == "iterative" else 0):
        flagged = anomalous(circular_differences(torch.where(wrong, 0.0, y), axis))
        wrong = wrong | first_of_run(flagged, axis)
    return wrong
