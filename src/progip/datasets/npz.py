"""Images from a user's own ``.npz`` files."""

import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from progip.datasets.base import Dataset, Images
from progip.errors import ProgipError
from progip.records import OOD_LABEL


@dataclass(kw_only=True)
class Npz(Dataset):
    """Arrays written by ``numpy.savez(FILE, data=..., labels=..., index=...)``.

    ``data``: uint8, shape (n, channels, height, width). ``labels``: integers, shape (n,), from 0 to
    ``classes`` - 1; may be missing in a set that serves as OOD set only. ``index``: integers, shape
    (n,), positions in the published set; where it is missing, images are numbered from 0. Other
    keys are ignored. In place of ``data`` there may be JPEG images, one after the other: ``jpeg``,
    their bytes (uint8), and ``offset``, where each begins and the last one ends (n + 1).

    Attributes:
        folder: where relative paths start; null: the working directory.
        train: the file of the training images; null: there are none.
        test: the file of the test images.
        crop: cut JPEG images to this many pixels a side, around their middle; null: as they are,
            which must be one size.

    Raises:
        ProgipError: on reading, naming the file and the key that is missing or wrong.
    """

    folder: str | None = None
    train: str | None = None
    test: str | None = None
    crop: int | None = None

    def train_images(self) -> Images:
        """Arrays of ``train``. Raises ProgipError also where it has no labels."""
        images = self._read("train", self.train)
        self.require(
            not np.any(images.labels == OOD_LABEL),
            f"{self.train}: 'labels'",
            "is missing; training images need it",
        )
        return images

    def test_images(self) -> Images:
        """Arrays of ``test``."""
        return self._read("test", self.test)

    def _read(self, option: str, given: str | None) -> Images:
        if given is None:
            raise ProgipError(
                f"dataset.{option} of dataset '{self.name}' is null, so there are no {option} "
                f"images; set dataset.{option}=FILE.npz"
            )
        path = Path(given).expanduser()
        if self.folder is not None:
            folder = Path(self.folder).expanduser()
            self.require(folder.is_dir(), f"folder={self.folder}", "is not there or is no folder")
            path = folder / path
        to_do = f"set {option} to the file's full path, or folder to where it is"
        if self.folder is None and not path.is_absolute():
            to_do = "set PROGIP_DATA or dataset.folder to the folder that holds it"
        self.require(path.is_file(), f"{option}={given}", f"is not at {path.absolute()}; {to_do}")
        arrays = read_arrays(path)
        return self._checked(path, arrays)

    def _checked(self, path: Path, arrays: dict[str, np.ndarray]) -> Images:
        where = f"{path}:"
        if "data" not in arrays and "jpeg" in arrays:
            arrays = {**arrays, "data": self._decoded(path, arrays)}
        self.require(
            "data" in arrays, where, f"has no key 'data', only {', '.join(arrays) or 'none'}"
        )
        data = arrays["data"]
        self.require(
            data.dtype == np.uint8,
            f"{where} 'data'",
            f"is {data.dtype}, not uint8; store pixels from 0 to 255",
        )
        channels_last = data.ndim == 4 and data.shape[1] not in (1, 3) and data.shape[3] in (1, 3)
        self.require(
            data.ndim == 4 and not channels_last and all(data.shape[1:]),
            f"{where} 'data'",
            f"has shape {data.shape}, not (n, channels, height, width)"
            + ("; transpose it by (0, 3, 1, 2)" if channels_last else ""),
        )
        self.require(len(data) > 0, f"{where} 'data'", "holds no image; give a larger set")
        labels = self._integers(path, arrays, "labels", np.full(len(data), OOD_LABEL), len(data))
        if "labels" in arrays:
            self.require(
                labels.min() >= 0 and labels.max() < self.classes,
                f"{where} 'labels'",
                f"range from {labels.min()} to {labels.max()}, not within 0..{self.classes - 1}; "
                "set classes to their number",
            )
        index = self._integers(path, arrays, "index", np.arange(len(data)), len(data))
        return Images(data, labels, index)

    def _decoded(self, path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Packed JPEG images as ``data``."""
        jpeg, ends = arrays["jpeg"], arrays.get("offset", np.zeros(0))
        usable = ends.ndim == 1 and len(ends) > 1 and np.issubdtype(ends.dtype, np.integer)
        self.require(
            usable and ends[0] == 0 and ends[-1] == len(jpeg) and bool((np.diff(ends) > 0).all()),
            f"{path}: 'offset'",
            "does not say where the images in 'jpeg' begin and end; give n + 1 ascending integers",
        )
        images = []
        for number, (start, end) in enumerate(pairwise(ends.tolist())):
            try:
                with Image.open(BytesIO(jpeg[start:end].tobytes())) as image:
                    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            except (OSError, SyntaxError) as error:
                raise ProgipError(f"{path}: image {number} cannot be read ({error})") from error
            images.append(pixels if self.crop is None else self._cut(path, number, pixels))
        sizes = {image.shape for image in images}
        self.require(
            len(sizes) == 1, f"{path}:", f"has images of {len(sizes)} sizes; set crop to one of all"
        )
        return np.stack(images)

    def _cut(self, path: Path, number: int, pixels: np.ndarray) -> np.ndarray:
        side = self.crop or 0
        height, width = pixels.shape[1:]
        self.require(
            0 < side <= min(height, width),
            f"crop={self.crop}",
            f"does not fit image {number} of {path}, {height} x {width}",
        )
        top, left = (height - side) // 2, (width - side) // 2
        return pixels[:, top : top + side, left : left + side]

    def _integers(
        self, path: Path, arrays: dict[str, np.ndarray], key: str, default: np.ndarray, count: int
    ) -> np.ndarray:
        values = arrays.get(key, default)
        self.require(
            values.shape == (count,) and np.issubdtype(values.dtype, np.integer),
            f"{path}: '{key}'",
            f"is {values.dtype} of shape {values.shape}, not integers of shape ({count},)",
        )
        return values.astype(np.int64)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file by key; pickled objects are refused.

    Raises:
        ProgipError: where the file is missing, no ``.npz``, truncated or holds Python objects; it
            names the file, and the key where it is one array that cannot be read.
    """
    if not path.is_file():
        raise ProgipError(f"{path} is not there or is no file")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ProgipError(
            f"{path} is truncated or no .npz file; get it again, or write it with numpy.savez"
        ) from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ProgipError(f"{path} holds one bare array; write it with numpy.savez(FILE, data=...)")
    arrays = {}
    with loaded:
        for key in loaded.files:
            try:
                arrays[key] = loaded[key]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ProgipError(
                    f"{path}: '{key}' cannot be read ({error}); the file is damaged or holds "
                    "Python objects: get it again, or write plain arrays"
                ) from error
    return arrays
