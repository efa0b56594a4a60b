"""Any ID set with any OOD set: colour, size, labels."""

import numpy as np
import pytest
from PIL import Image
from published_layouts import random_pixels

from progip.datasets.base import Images
from progip.datasets.digits import Digits
from progip.datasets.imaging import INTERPOLATIONS
from progip.datasets.npz import Npz
from progip.datasets.pairing import matched, population_split
from progip.errors import ProgipError


def images_of(*shape: int) -> Images:
    return Images(random_pixels(4, *shape), np.arange(4), np.arange(10, 14))


def test_what_fits_already_stays_the_very_same_arrays() -> None:
    images = images_of(3, 32, 32)
    paired = matched(images, 3, 32, "bilinear")
    assert paired.pixels is images.pixels
    assert paired.index is images.index
    assert paired.labels.tolist() == [-1] * 4
    assert images.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("present", [1, 3])
@pytest.mark.parametrize("size", [16, 32, (20, 28)])
def test_shape_and_type(
    present: int, channels: int, size: int | tuple[int, int], interpolation: str
) -> None:
    paired = matched(images_of(present, 32, 32), channels, size, interpolation)
    assert paired.pixels.shape == (4, channels, *((size, size) if isinstance(size, int) else size))
    assert paired.pixels.dtype == np.uint8
    assert set(paired.labels) == {-1}
    assert paired.index.tolist() == [10, 11, 12, 13]


def test_grey_is_replicated_and_rgb_becomes_luma() -> None:
    grey = images_of(1, 8, 8)
    rgb = matched(grey, 3, 8, "nearest").pixels
    assert all(np.array_equal(rgb[:, channel], grey.pixels[:, 0]) for channel in range(3))
    assert np.array_equal(
        matched(Images(rgb, grey.labels, grey.index), 1, 8, "box").pixels, grey.pixels
    )
    colour = images_of(3, 8, 8)
    luma = colour.pixels.transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(matched(colour, 1, 8, "box").pixels[:, 0] - luma).max() <= 1


def test_resizing_is_pillows_and_the_filter_matters() -> None:
    images = images_of(3, 64, 64)
    results = {name: matched(images, 3, 32, name).pixels for name in INTERPOLATIONS}
    assert np.array_equal(results["nearest"], images.pixels[:, :, 1::2, 1::2])
    for name, method in INTERPOLATIONS.items():
        whole = Image.fromarray(images.pixels[0].transpose(1, 2, 0)).resize((32, 32), method)
        assert np.array_equal(results[name][0], np.asarray(whole).transpose(2, 0, 1))
    assert len({pixels.tobytes() for pixels in results.values()}) == len(INTERPOLATIONS)


def test_other_proportions_lose_their_edges_not_their_shape() -> None:
    pixels = np.zeros((1, 1, 8, 16), np.uint8)
    pixels[..., 4:12] = 200  # the central square
    paired = matched(Images(pixels, np.zeros(1), np.zeros(1)), 1, 8, "bilinear")
    assert np.array_equal(paired.pixels, np.full((1, 1, 8, 8), 200))


def test_other_numbers_of_channels_cannot_be_converted() -> None:
    assert matched(images_of(4, 8, 8), 4, 8, "box").pixels.shape == (4, 4, 8, 8)
    for present, channels, size in ((4, 3, 8), (3, 4, 8), (4, 4, 9)):
        with pytest.raises(ProgipError, match=r"only 1 .* and 3 .* channels can be converted"):
            matched(images_of(present, 8, 8), channels, size, "box")


def test_digits_pair_with_photographs_both_ways(shared_data) -> None:
    digits = Digits(name="digits")
    photographs = Npz(
        name="tiny",
        classes=200,
        calibration=1000,
        folder=str(shared_data),
        test="tiny_imagenet/test_resize32_nearest_4000.npz",
        limit=1200,
    )
    ood = population_split("ood", "evaluation", digits, photographs)
    assert ood.pixels.shape == (200, 1, 16, 16)
    assert set(ood.labels) == {-1}
    assert set(population_split("id", "evaluation", digits, photographs).labels) == set(range(8))
    assert population_split("ood", "calibration", photographs, digits).pixels.shape[1:] == (
        3,
        32,
        32,
    )
    with pytest.raises(ProgipError, match="'tiny' has images without labels"):
        population_split("id", "evaluation", photographs, digits)
    with pytest.raises(ProgipError, match="population=both is not one of id, ood"):
        population_split("both", "evaluation", digits, photographs)
