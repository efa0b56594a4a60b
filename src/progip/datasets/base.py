"""What every dataset is: images with labels, three splits that never overlap, one normalisation."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from progip.errors import ProgipError

Split = Literal["train", "calibration", "evaluation"]
SPLIT_SEED = 20_251_121  # fixed for ever: which test image is calibration is part of a dataset


@dataclass(frozen=True)
class Images:
    """Images as published.

    Attributes:
        pixels: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,); class indices.
        index: int64, shape (n,); position of each image in its published set.
    """

    pixels: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: np.ndarray) -> "Images":
        return Images(self.pixels[positions], self.labels[positions], self.index[positions])

    def fingerprint(self) -> str:
        """sha256 over pixels and labels: what a manifest records of the data."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        return digest.hexdigest()

    def tensor(self, mean: list[float], std: list[float]) -> torch.Tensor:
        """float32 (n, channels, height, width): pixels / 255, then (x - mean) / std per channel."""
        scaled = torch.from_numpy(np.ascontiguousarray(self.pixels)).float().div_(255.0)
        shape = (1, -1, 1, 1)
        return scaled.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


@dataclass(kw_only=True)
class Dataset(ABC):
    """One dataset; the fields of a subclass are the options of its YAML file.

    Attributes:
        name: what result rows call it; the name of its YAML file.
        classes: number of classes.
        mean, std: per-channel normalisation in [0, 1] pixel units.
        calibration: how many test images are set aside for thresholds; the rest is evaluation.
        folder: read from this local folder instead of downloading into the cache.
    """

    name: str
    classes: int
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    calibration: int = 1000
    folder: str | None = None

    @abstractmethod
    def train_images(self) -> Images:
        """The training set. Raises ProgipError where the set has none or a file is missing."""

    @abstractmethod
    def test_images(self) -> Images:
        """The images no network was trained on, in their published order."""

    def split(self, name: Split) -> Images:
        """Images of one split; calibration and evaluation are a fixed partition of the test set.

        Raises:
            ProgipError: where the split would be empty.
        """
        if name == "train":
            images = self.train_images()
        else:
            test = self.test_images()
            order = np.random.default_rng(SPLIT_SEED).permutation(len(test))
            chosen = order[: self.calibration] if name == "calibration" else order[self.calibration :]
            images = test.take(np.sort(chosen))
        if len(images) == 0:
            raise ProgipError(
                f"dataset '{self.name}': the {name} split is empty (calibration={self.calibration}); "
                "change dataset.calibration or give a larger set"
            )
        return images
