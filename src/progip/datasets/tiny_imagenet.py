"""Tiny-ImageNet from its published archive: resized or cropped as OOD set, or whole as ID set."""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm.auto import tqdm

from progip.datasets.base import Images
from progip.datasets.imaging import as_pixels, centre_cropped, decoded, fitted
from progip.datasets.published import Published
from progip.errors import ProgipError
from progip.records import OOD_LABEL

TOP = "tiny-imagenet-200"
PUBLISHED_SIZE = 64
MODES = ("resize", "crop")
TEST_PARTS = ("val", "test")
Read = Callable[[str], bytes]


@dataclass(kw_only=True)
class TinyImagenet(Published):
    """Tiny-ImageNet: 200 classes, RGB, 64x64; 100,000 training, 10,000 val and 10,000 test images.

    ``folder`` holds ``tiny-imagenet-200.zip``, or ``tiny-imagenet-200`` as extracted from it. A
    label is the position of the class in the sorted WordNet ids, as torchvision's ImageFolder has
    it. The published test images come without labels (`records.OOD_LABEL`). ``index`` is the
    number in the file name, for training images the position in the sorted file names.

    Attributes:
        mode: ``resize`` to ``size`` by ``interpolation``, or ``crop`` the centre of ``size``. For
            64 to 32 pixels ``nearest`` comes closest to the published "ImageNet resize" set of
            ODIN, which carries resampling artefacts; the filter decides the OOD base metrics.
        size: height and width in pixels, at most 64 for ``crop``.
        test_part: which published part the test images are: ``val`` (labelled) or ``test``.

    Source: http://cs231n.stanford.edu/tiny-imagenet-200.zip; as OOD set: S. Liang, Y. Li,
    R. Srikant, Enhancing the reliability of out-of-distribution image detection in neural networks,
    ICLR 2018.
    """

    classes: int = 200
    mean: list[float] = field(default_factory=lambda: [0.4802, 0.4481, 0.3975])
    std: list[float] = field(default_factory=lambda: [0.2770, 0.2691, 0.2821])
    interpolation: str = "nearest"
    mode: str = "resize"
    size: int = PUBLISHED_SIZE
    test_part: str = "val"

    SITE: ClassVar[str] = "http://cs231n.stanford.edu"
    FILE: ClassVar[str] = f"{TOP}.zip"
    PUBLISHED: ClassVar[str] = "md5:90528d7ca1a48142e341f4ef8d21d0de"
    MARKER: ClassVar[str | None] = f"{TOP}/wnids.txt"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.mode in MODES, f"mode={self.mode}", f"is not one of {', '.join(MODES)}")
        self.require(
            self.test_part in TEST_PARTS,
            f"test_part={self.test_part}",
            f"is not one of {', '.join(TEST_PARTS)}",
        )
        largest = PUBLISHED_SIZE if self.mode == "crop" else self.size
        self.require(
            0 < self.size <= largest, f"size={self.size}", f"is not in 1..{largest} for {self.mode}"
        )

    def decoding(self) -> dict[str, object]:
        """The mode, the size, the filter where it is used, and the part."""
        used = self.interpolation if self.mode == "resize" else None
        return {
            "mode": self.mode,
            "size": self.size,
            "interpolation": used,
            "test_part": self.test_part,
        }

    def decode(self, source: Path, part: str) -> Images:
        """Images of the training part or of ``test_part``, read from the archive or folder."""
        try:
            with _opened(source) as (names, read):
                wanted = "train" if part == "train" else self.test_part
                return self._decode(names, read, wanted, source)
        except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, FileNotFoundError) as error:
            raise ProgipError(
                f"dataset '{self.name}': {source} is truncated or not in the published form "
                f"({error}); get {self.mirror}/{self.FILE} again"
            ) from error

    def _decode(self, names: list[str], read: Read, part: str, source: Path) -> Images:
        classes = sorted(read("wnids.txt").decode().split())
        self.require(
            len(classes) <= self.classes, f"classes={self.classes}", f"but there are {len(classes)}"
        )
        files = [name for name in names if re.fullmatch(rf"{part}/(.+/)?images/.+\.JPEG", name)]
        if part == "train":
            files.sort()
            wnids = [file.split("/")[1] for file in files]
            index = list(range(len(files)))
        else:
            files.sort(key=_number)
            index = [_number(file) for file in files]
            wnids = []
        if part == "val":
            rows = (
                line.split("\t") for line in read("val/val_annotations.txt").decode().splitlines()
            )
            annotated = {row[0]: row[1] for row in rows if len(row) > 1}
            wnids = [annotated[Path(file).name] for file in files]
        position = {wnid: label for label, wnid in enumerate(classes)}
        labels = [position[wnid] for wnid in wnids] or [OOD_LABEL] * len(files)
        pixels = np.empty((len(files), 3, self.size, self.size), np.uint8)
        for row, file in enumerate(tqdm(files, desc=f"{self.name}: decoding", disable=None)):
            pixels[row] = self._pixels(read(file), f"{source}: {file}")
        return Images(pixels, np.array(labels, dtype=np.int64), np.array(index, dtype=np.int64))

    def _pixels(self, content: bytes, file: str) -> np.ndarray:
        image = decoded(content, file)
        if self.mode == "resize":
            return as_pixels(fitted(image, self.size, self.size, self.interpolation))
        try:
            return as_pixels(centre_cropped(image, self.size))
        except ValueError as error:
            raise ProgipError(
                f"dataset '{self.name}': {file} cannot be cropped: {error}"
            ) from error


@contextmanager
def _opened(source: Path) -> Iterator[tuple[list[str], Read]]:
    """The names under the top folder, and how to read one: from the archive or a folder."""
    if source.is_dir():
        root = source / TOP
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        yield names, lambda name: (root / name).read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        prefix = f"{TOP}/"
        names = [n.removeprefix(prefix) for n in archive.namelist() if n.startswith(prefix)]
        yield names, lambda name: archive.read(prefix + name)


def _number(file: str) -> int:
    found = re.search(r"_(\d+)\.JPEG$", file)
    if found is None:
        raise LookupError(f"{file} has no number")
    return int(found[1])
