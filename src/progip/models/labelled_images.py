"""The images a network is trained on: what is needed of them, checks, crops, normalisation."""

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from progip.errors import ProgipError
from progip.models.base import Model


class LabelledImages(Protocol):
    """What is needed of ``progip.datasets.base.Images``."""

    @property
    def pixels(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...

    def fingerprint(self) -> str: ...


def cropped(pixels: torch.Tensor, padding: int) -> torch.Tensor:
    """A random crop of each image, of its own size, out of the image with a black border."""
    n, _, height, width = pixels.shape
    padded = F.pad(pixels, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1))
    rows = (top + torch.arange(height)).view(n, 1, height, 1)
    columns = (left + torch.arange(width)).view(n, 1, 1, width)
    channels = torch.arange(pixels.shape[1]).view(1, -1, 1, 1)
    return padded[torch.arange(n).view(n, 1, 1, 1), channels, rows, columns]


def normalised(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """float32: (pixels / 255 - mean) / std, per channel."""
    shape = (1, -1, 1, 1)
    scaled = pixels.float().div_(255.0)
    return scaled.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


def check(spec: Model, images: LabelledImages, name: str, *normalised_channels: int) -> None:
    """Do these images fit the model?

    Args:
        spec: the model.
        images: the ``name`` images (training, test).
        normalised_channels: lengths of mean and std.

    Raises:
        ProgipError: where there are no images, or channels or labels are not the model's.
    """
    pixels, labels = images.pixels, images.labels
    if len(pixels) == 0:
        raise ProgipError(f"there are no {name} images to train '{spec.name}' with")
    if pixels.shape[1] != spec.channels or any(n != spec.channels for n in normalised_channels):
        raise ProgipError(
            f"model '{spec.name}' takes {spec.channels} channels; the {name} images have "
            f"{pixels.shape[1]}, mean and std {normalised_channels}"
        )
    if labels.min() < 0 or labels.max() >= spec.classes:
        raise ProgipError(
            f"the labels of the {name} images run from {labels.min()} to {labels.max()}, but model "
            f"'{spec.name}' has {spec.classes} classes (0 to {spec.classes - 1})"
        )
