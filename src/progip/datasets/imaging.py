"""Resampling and grey / RGB conversion of uint8 images, all of it done by Pillow."""

import io

import numpy as np
from PIL import Image, ImageOps

from progip.errors import ProgipError

#: the resampling filters by the names that options use. Pillow widens every filter but ``nearest``
#: when it shrinks an image, that is, it antialiases.
INTERPOLATIONS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")
}
MODES = {1: "L", 3: "RGB"}


def fitted(image: Image.Image, height: int, width: int, interpolation: str) -> Image.Image:
    """The image at ``height`` x ``width`` pixels; the very same object where it has that size.

    Where the proportions differ, the largest centred part of the wanted proportions is what is
    resized: the same as resizing the shorter side and cropping the centre.
    """
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), method=INTERPOLATIONS[interpolation])


def centre_cropped(image: Image.Image, size: int) -> Image.Image:
    """The central ``size`` x ``size`` pixels, not resampled; the odd pixel stays right / below.

    Raises:
        ValueError: where the image is smaller than that.
    """
    left, top = (image.width - size) // 2, (image.height - size) // 2
    if left < 0 or top < 0:
        raise ValueError(f"{image.width}x{image.height} pixels are fewer than {size}x{size}")
    return image.crop((left, top, left + size, top + size))


def as_image(pixels: np.ndarray) -> Image.Image:
    """uint8 (1 or 3, height, width) as a Pillow image in mode L or RGB."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def as_pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image in mode L or RGB as uint8 (1 or 3, height, width)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decoded(content: bytes, file: str) -> Image.Image:
    """An image file's content in RGB (grey is replicated); ``file`` is what an error names.

    Raises:
        ProgipError: where the content is no whole image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow: SyntaxError for broken PNG chunks
        raise ProgipError(f"{file} is no image or is damaged ({error}); get it again") from error
