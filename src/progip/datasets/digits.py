"""scikit-learn's handwritten digits: the embedded default, real images without a download."""

from dataclasses import dataclass, field

import numpy as np

from progip.datasets.base import SPLIT_SEED, Dataset, Images
from progip.datasets.imaging import as_image, as_pixels, fitted

PUBLISHED_MAXIMUM = 16  # the published pixels are counts from 0 to 16
PUBLISHED_SIZE = 8


@dataclass(kw_only=True)
class Digits(Dataset):
    """Some of the ten classes of the 1,797 handwritten digits that come with scikit-learn.

    The published 8x8 pixels 0..16 become uint8 by ``round(v * 255 / 16)`` and are then resized to
    one channel of ``size`` x ``size``. Training and test images are a stratified partition that no
    option but ``digits`` and ``train_size`` changes.

    Attributes:
        digits: which digits belong to the set; a label is the position in this list.
        train_size: how many images are for training, in proportion to the classes; 0: all are test
            images, as an OOD set has it.
        size: height and width in pixels.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (its test part), UCI
    Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, as it comes with
    scikit-learn (`sklearn.datasets.load_digits`).
    """

    classes: int = 8
    mean: list[float] = field(default_factory=lambda: [0.3035])
    std: list[float] = field(default_factory=lambda: [0.3210])
    calibration: int = 250
    digits: list[int] = field(default_factory=lambda: list(range(8)))
    train_size: int = 800
    size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            len(set(self.digits)) == len(self.digits) > 0 and set(self.digits) <= set(range(10)),
            f"digits={list(self.digits)}",
            "must be different digits from 0 to 9, at least one",
        )
        self.require(
            self.classes == len(self.digits),
            f"classes={self.classes}",
            f"is not the number of its digits, {len(self.digits)}",
        )
        self.require(
            self.train_size == 0 or self.train_size >= self.classes,
            f"train_size={self.train_size}",
            "is neither 0 nor at least one image per class",
        )
        self.require(self.size > 0, f"size={self.size}", "is not a positive number of pixels")

    def train_images(self) -> Images:
        """The training images. Raises ProgipError where ``train_size`` is 0."""
        self.require(
            self.train_size > 0, "train_size=0", "means it has no training images; use another set"
        )
        return self._partition()[0]

    def test_images(self) -> Images:
        """All images of the chosen digits that are not for training."""
        return self._partition()[1]

    def _partition(self) -> tuple[Images, Images]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        published = load_digits()
        positions = np.flatnonzero(np.isin(published.target, self.digits))
        labels = np.array([self.digits.index(digit) for digit in published.target[positions]])
        grey = np.rint(published.images[positions] * (255 / PUBLISHED_MAXIMUM)).astype(np.uint8)
        pixels = np.stack(
            [
                as_pixels(fitted(as_image(image[None]), self.size, self.size, self.interpolation))
                for image in grey
            ]
        )
        images = Images(pixels, labels.astype(np.int64), positions.astype(np.int64))
        if self.train_size == 0:
            return images.take(np.arange(0)), images
        self.require(
            self.train_size <= len(images) - self.classes,
            f"train_size={self.train_size}",
            f"leaves too few of the {len(images)} images for testing",
        )
        train, test = train_test_split(
            np.arange(len(images)),
            train_size=self.train_size,
            stratify=labels,
            random_state=SPLIT_SEED,
        )
        return images.take(np.sort(train)), images.take(np.sort(test))
