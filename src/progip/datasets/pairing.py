"""Any ID set with any OOD set: the images of both populations, in the shape of the ID set."""

import numpy as np

from progip.datasets.base import Dataset, Images, Split
from progip.datasets.imaging import MODES, as_image, as_pixels, fitted
from progip.errors import ProgipError
from progip.records import OOD_LABEL, POPULATIONS


def matched(
    images: Images, channels: int, size: int | tuple[int, int], interpolation: str
) -> Images:
    """The images of an OOD set in the shape of an ID set, every label ``records.OOD_LABEL``.

    First colour: RGB becomes grey by ITU-R 601-2 luma (Pillow), grey becomes RGB by replication.
    Then size: the largest centred part of the wanted proportions is resized. Where nothing is to be
    changed, pixels and index are the very same arrays.

    Args:
        images: uint8 pixels, shape (n, channels, height, width).
        channels: of the ID set.
        size: of the ID set: (height, width) in pixels, or one number for a square.
        interpolation: nearest, box, bilinear, bicubic or lanczos.

    Raises:
        ProgipError: where other than 1 or 3 channels would have to be converted.
    """
    height, width = (size, size) if isinstance(size, int) else size
    labels = np.full(len(images), OOD_LABEL, dtype=np.int64)
    present = images.pixels.shape[1]
    if images.pixels.shape[1:] == (channels, height, width):
        return Images(images.pixels, labels, images.index)
    if present not in MODES or channels not in MODES:
        raise ProgipError(
            f"images of shape {images.pixels.shape[1:]} cannot be turned into "
            f"{(channels, height, width)}: only 1 (grey) and 3 (RGB) channels can be converted; "
            "choose another ood_dataset"
        )
    pixels = np.empty((len(images), channels, height, width), np.uint8)
    for row, image in enumerate(images.pixels):
        coloured = as_image(image).convert(MODES[channels])
        pixels[row] = as_pixels(fitted(coloured, height, width, interpolation))
    return Images(pixels, labels, images.index)


def population_split(population: str, split: Split, id_set: Dataset, ood_set: Dataset) -> Images:
    """Images of one split of a population: of the ID set, or of the OOD set matched to it.

    Args:
        population: ``id`` or ``ood``.
        split: ``train``, ``calibration`` or ``evaluation``.

    Raises:
        ProgipError: where the population is unknown, the split empty, or the ID set unlabelled.
    """
    if population not in POPULATIONS:
        raise ProgipError(f"population={population} is not one of {', '.join(POPULATIONS)}")
    if population == "ood":
        channels, height, width = id_set.shape
        return matched(ood_set.split(split), channels, (height, width), ood_set.interpolation)
    images = id_set.split(split)
    if np.any(images.labels == OOD_LABEL):
        raise ProgipError(
            f"dataset '{id_set.name}' has images without labels, so it can only be an OOD set; "
            "choose another dataset, or use it as ood_dataset"
        )
    return images
