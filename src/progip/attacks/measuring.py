"""Accuracy under attack, with its interval."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from progip.attacks.base import Attack
from progip.errors import ProgipError
from progip.models.loading import seeded
from progip.statistics import Rate, rate

#: how far float32 may carry a pixel beyond the budget, in units of the pixel range
ROUNDING = 1e-6


@dataclass(frozen=True)
class Robustness:
    """What an attack left of a network's accuracy.

    Attributes:
        clean: share of the images that are classified right.
        robust: share that is right, and right under attack: an attacker may leave an image alone.
        largest_change: of any pixel, in levels of 255.
    """

    clean: Rate
    robust: Rate
    largest_change: float


def robustness(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    batch_size: int = 250,
    seed: int = 0,
    seen: Callable[[Tensor], object] | None = None,
) -> Robustness:
    """Attack every image and count; the global random generators stay as they were.

    Args:
        network: pixels in [0, 1] to logits, in evaluation mode.
        pixels: (n, channels, height, width) float32 in [0, 1].
        labels: (n,) int64.
        seed: random starts depend on it, the attack's name and the position of the batch.
        seen: is given the attacked images, batch by batch.

    Raises:
        ProgipError: the attack went beyond its budget or out of [0, 1].
    """
    clean = robust = 0
    largest = 0.0
    for start in range(0, len(pixels), batch_size):
        images, wanted = pixels[start : start + batch_size], labels[start : start + batch_size]
        with seeded(f"{attack.name}/{seed}/{start}", images.device):
            found = attack.perturbed(network, images, wanted).detach()
        change = float((found - images).abs().max())
        if not change <= attack.epsilon + ROUNDING or found.min() < 0 or found.max() > 1:
            raise ProgipError(
                f"attack '{attack.name}' changed a pixel by {change * 255:.3f} levels of 255, its "
                f"budget is {attack.budget:g}, or left [0, 1]: a defect of the attack"
            )
        if seen is not None:
            seen(found)
        with torch.no_grad():
            right = network(images).argmax(1) == wanted
            still = network(found).argmax(1) == wanted
        clean += int(right.sum())
        robust += int((right & still).sum())
        largest = max(largest, change * 255)
    return Robustness(rate(clean, len(pixels)), rate(robust, len(pixels)), largest)
