"""Textures: the Describable Textures Dataset (DTD)."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm.auto import tqdm

from progip.datasets.base import Images
from progip.datasets.download import unpacked
from progip.datasets.imaging import as_pixels, decoded, fitted
from progip.datasets.published import Published
from progip.errors import ProgipError

PARTS = ("train", "val", "test")


@dataclass(kw_only=True)
class Textures(Published):
    """DTD: 5,640 photographs of 47 textures, RGB, of varying sizes, 1,880 in each published part.

    The shorter side of each is resized to ``size`` by ``interpolation`` and the centre is cropped
    (Pillow's ``ImageOps.fit``: the central square is what is resampled).
    ``folder`` holds ``dtd-r1.0.1.tar.gz``, or ``dtd`` as extracted from it. A label is the position
    of the class in alphabetical order; ``index`` counts through the published lists train, val,
    test of the ``partition``.

    Attributes:
        size: height and width in pixels.
        parts: the published parts that are test images (all three for an OOD set); the others are
            training images.
        partition: which of the ten published partitions into parts, 1 to 10.

    Source: M. Cimpoi et al., Describing Textures in the Wild, CVPR 2014,
    https://www.robots.ox.ac.uk/~vgg/data/dtd/
    """

    classes: int = 47
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    size: int = 32
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    partition: int = 1

    SITE: ClassVar[str] = "https://www.robots.ox.ac.uk/~vgg/data/dtd/download"
    FILE: ClassVar[str] = "dtd-r1.0.1.tar.gz"
    PUBLISHED: ClassVar[str] = "md5:fff73e5086ae6bdbea199a49dfb8a4c1"
    MARKER: ClassVar[str | None] = "dtd/labels/test1.txt"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.size > 0, f"size={self.size}", "is not a positive number of pixels")
        self.require(
            0 < len(self.parts) == len(set(self.parts)) and set(self.parts) <= set(PARTS),
            f"parts={list(self.parts)}",
            f"must be one or more of {', '.join(PARTS)}, each once",
        )
        self.require(1 <= self.partition <= 10, f"partition={self.partition}", "is not in 1..10")

    def decoding(self) -> dict[str, object]:
        """All options of this class and the filter."""
        return {
            "size": self.size,
            "parts": sorted(self.parts),
            "partition": self.partition,
            "interpolation": self.interpolation,
        }

    def train_images(self) -> Images:
        """The parts that are not in ``parts``. Raises ProgipError where there is none."""
        self.require(
            len(self.parts) < len(PARTS),
            f"parts={list(self.parts)}",
            "makes all images test images and leaves none for training; list fewer",
        )
        return super().train_images()

    def decode(self, source: Path, part: str) -> Images:
        """The images of the wanted parts, from the archive or the folder it was extracted in."""
        with nullcontext(source) if source.is_dir() else unpacked(source) as root:
            try:
                return self._decode(root / "dtd", part, source)
            except FileNotFoundError as error:
                raise ProgipError(
                    f"dataset '{self.name}': {source} lacks "
                    f"{Path(error.filename).relative_to(root)}; get {self.mirror}/{self.FILE} again"
                ) from error

    def _decode(self, root: Path, part: str, source: Path) -> Images:
        published = [
            (name, line)
            for name in PARTS
            for line in (root / "labels" / f"{name}{self.partition}.txt").read_text().split()
        ]
        names = sorted({line.partition("/")[0] for _, line in published})
        self.require(
            len(names) <= self.classes, f"classes={self.classes}", f"but there are {len(names)}"
        )
        wanted = [
            i for i, (name, _) in enumerate(published) if (name in self.parts) == (part == "test")
        ]
        pixels = np.empty((len(wanted), 3, self.size, self.size), np.uint8)
        for row, i in enumerate(tqdm(wanted, desc=f"{self.name}: decoding", disable=None)):
            file = root / "images" / published[i][1]
            image = decoded(file.read_bytes(), f"{source}: {published[i][1]}")
            pixels[row] = as_pixels(fitted(image, self.size, self.size, self.interpolation))
        labels = [names.index(published[i][1].partition("/")[0]) for i in wanted]
        return Images(pixels, np.array(labels, dtype=np.int64), np.array(wanted, dtype=np.int64))
