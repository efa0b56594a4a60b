"""The training images a search may use: some to search with, others to choose by."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from progip.protections.correcting import check_fitted

log = logging.getLogger(__name__)
BATCH = 128


@dataclass(frozen=True)
class SearchData:
    """Training images, never test images, on the network's device.

    Attributes:
        images: (n, channels, height, width) to search with.
        labels: (n,) int64.
        validation: (m, channels, height, width), none of which is among ``images``.
        validation_labels: (m,) int64.
    """

    images: Tensor
    labels: Tensor
    validation: Tensor
    validation_labels: Tensor

    @property
    def pair(self) -> Tensor:
        """Two images to look at a network with; the same twice where there is one."""
        return self.images[:2] if len(self.images) > 1 else self.images.repeat(2, 1, 1, 1)

    def accuracy(self, network: nn.Module) -> float:
        """Percent of the validation images in their class; NaN logits are in none."""
        return accuracy(network, self.validation, self.validation_labels)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of images in their class; NaN logits are in none."""
    right = 0
    for part, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        logits = network(part)
        found = logits.argmax(1).masked_fill(torch.isnan(logits).any(1), -1)
        right += int((found == wanted).sum())
    return 100 * right / len(images)


def collected(
    owner: str,
    batches: Iterable[tuple[Tensor, Tensor]],
    images: int,
    validation: int,
    seed: int,
) -> SearchData:
    """So many training images and so many others, all choices alike, whatever the batches.

    Where there are too few, both get their share of what there is.

    Raises:
        ProgipError: there are not even two.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    wanted, total = images + validation, 0
    keys = np.zeros(0)
    kept: tuple[Tensor, Tensor] | None = None
    for pixels, labels in batches:
        keys = np.concatenate([keys, generator.random(len(pixels))])
        total += len(pixels)
        if kept is not None:
            pixels = torch.cat([kept[0], pixels])
            labels = torch.cat([kept[1], labels])
        order = np.sort(np.argsort(keys)[:wanted])
        keys, chosen = keys[order], torch.from_numpy(order)
        kept = pixels[chosen.to(pixels.device)], labels[chosen.to(labels.device)]
    needed = 1 + (validation > 0)
    check_fitted(total, owner, needed)
    assert kept is not None  # as just checked
    pixels, labels = kept[0], kept[1].to(kept[0].device).long()
    first = images
    if total < wanted:
        first = min(max(1, total * images // wanted), total - (validation > 0))
        log.info(
            "protection %s: %d training images, so %d to search with and %d to choose by",
            owner, total, first, total - first,
        )  # fmt: skip
    by_key = torch.from_numpy(np.argsort(keys)).to(pixels.device)
    search, chosen = by_key[:first], by_key[first:]
    layout = torch.channels_last if _channels_last(pixels) else torch.contiguous_format
    return SearchData(
        pixels[search].contiguous(memory_format=layout),
        labels[search],
        pixels[chosen].contiguous(memory_format=layout),
        labels[chosen],
    )


def _channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
