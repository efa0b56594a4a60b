"""Real test images for the model tests; a small labelled set made from nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from progip.datasets.base import Images


@pytest.fixture(scope="session")
def cifar_test(real_data: Path) -> Images:
    with np.load(real_data / "cifar10" / "test_lossless_1017.npz") as arrays:
        labels, index = (arrays[key].astype(np.int64) for key in ("labels", "index"))
        return Images(arrays["data"], labels, index)


@pytest.fixture(scope="session")
def stripes() -> Callable[[int], Images]:
    """n images 1x16x16 in three classes: noise with a bright stripe that tells the class."""

    def make(n: int) -> Images:
        random = np.random.default_rng(n)
        labels = np.arange(n) % 3
        pixels = random.integers(0, 120, (n, 1, 16, 16), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[0, 5 * label : 5 * label + 4] += 120
        return Images(pixels, labels.astype(np.int64), np.arange(n))

    return make


@pytest.fixture(autouse=True)
def _untouched_generator() -> None:
    """Every test starts from the same global random numbers."""
    torch.manual_seed(0)
