"""What every dataset is: images with labels, three splits that never overlap, one normalisation."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch

from progip.datasets.imaging import INTERPOLATIONS
from progip.errors import ProgipError

Split = Literal["train", "calibration", "evaluation"]
SPLITS: tuple[str, ...] = get_args(Split)
SPLIT_SEED = 20_251_121  # fixed for ever: which test image is calibration is part of a dataset


@dataclass(frozen=True)
class Images:
    """Images as published.

    Attributes:
        pixels: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,); class indices, ``records.OOD_LABEL`` where there is none.
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
        """float32 (n, channels, height, width): pixels / 255, then (x - mean) / std per channel.

        Raises:
            ProgipError: where mean or std has not one value per channel.
        """
        channels = self.pixels.shape[1]
        if len(mean) != channels or len(std) != channels:
            raise ProgipError(
                f"the images have {channels} channel(s) but mean has {len(mean)} and std "
                f"{len(std)} value(s); give the dataset one mean and one std for each channel"
            )
        scaled = torch.from_numpy(np.ascontiguousarray(self.pixels)).float().div_(255.0)
        shape = (1, -1, 1, 1)
        return scaled.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


@dataclass(kw_only=True)
class Dataset(ABC):
    """One dataset; the fields of a subclass are the options of its YAML file.

    Making one reads nothing; images are read at the first use and kept in memory by the instance.

    Attributes:
        name: what result rows call it; the name of its YAML file.
        classes: number of classes.
        mean, std: per-channel normalisation in [0, 1] pixel units.
        calibration: how many test images are set aside for thresholds; the rest is evaluation.
        limit: use only so many test images, calibration included; null: all. They are the first
            of a fixed permutation, so the calibration images stay the same ones.
        train_limit: use only the first so many training images; null: all.
        interpolation: how images are resized, by the set itself and when it is paired as OOD set
            with images of another size: nearest, box, bilinear, bicubic or lanczos.

    Raises:
        ProgipError: for an option out of range, by its name.
    """

    name: str
    classes: int
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    calibration: int = 1000
    limit: int | None = None
    train_limit: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        self.require(self.classes >= 1, f"classes={self.classes}", "is not positive; count them")
        self.require(
            len(self.mean) == len(self.std) > 0 and all(value > 0 for value in self.std),
            f"mean={list(self.mean)}, std={list(self.std)}",
            "need one value per channel each, every std above 0",
        )
        self.require(
            self.calibration >= 0, f"calibration={self.calibration}", "is negative; give 0 or more"
        )
        self.require(
            self.limit is None or self.limit > 0,
            f"limit={self.limit}",
            "leaves no image; give 1 or more, or null for all",
        )
        self.require(
            self.train_limit is None or self.train_limit > 0,
            f"train_limit={self.train_limit}",
            "leaves no image; give 1 or more, or null for all",
        )
        self.require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation={self.interpolation}",
            f"is not one of {', '.join(INTERPOLATIONS)}",
        )

    @abstractmethod
    def train_images(self) -> Images:
        """The training set. Raises ProgipError where the set has none or a file is missing."""

    @abstractmethod
    def test_images(self) -> Images:
        """The images no network was trained on, in their published order."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the test images; reads them."""
        channels, height, width = self._test.pixels.shape[1:]
        return channels, height, width

    def split(self, name: Split) -> Images:
        """Images of one split; calibration and evaluation are a fixed partition of the test set.

        Raises:
            ProgipError: where the split would be empty.
        """
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; there are {', '.join(SPLITS)}")
        if name == "train":
            every = self._train
            images = every.take(np.arange(len(every))[: self.train_limit])
        else:
            test = self._test
            order = np.random.default_rng(SPLIT_SEED).permutation(len(test))[: self.limit]
            self.require(
                len(order) == 0 or self.calibration < len(order),
                f"calibration={self.calibration}",
                f"leaves none of the {len(order)} test images for evaluation"
                + (f" (limit={self.limit})" if self.limit else "")
                + f"; give a calibration below {len(order)}",
            )
            chosen = {
                "calibration": order[: self.calibration],
                "evaluation": order[self.calibration :],
            }
            images = test.take(np.sort(chosen[name]))
        self.require(
            len(images) > 0,
            f"the {name} split",
            f"is empty (calibration={self.calibration}); "
            "change the option calibration or give a larger set",
        )
        return images

    def require(self, holds: bool, what: str, complaint: str) -> None:
        """Raise ProgipError "dataset 'NAME': WHAT COMPLAINT" unless ``holds``."""
        if not holds:
            raise ProgipError(f"dataset '{self.name}': {what} {complaint}")

    @cached_property
    def _train(self) -> Images:
        return self.train_images()

    @cached_property
    def _test(self) -> Images:
        return self.test_images()
