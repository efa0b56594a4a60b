"""CIFAR-10 and CIFAR-100, read by torchvision."""

import pickle
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from progip.compat import enable_torchvision
from progip.datasets.base import Images
from progip.datasets.download import unpacked
from progip.datasets.published import Published
from progip.errors import ProgipError


@dataclass(kw_only=True)
class Cifar10(Published):
    """CIFAR-10: 50,000 training and 10,000 test photographs of 10 classes, RGB, 32x32.

    ``folder`` holds ``cifar-10-python.tar.gz``, or ``cifar-10-batches-py`` as extracted from it.
    The batches are pickles: they are opened only after their checksums (the archive's, or those
    that torchvision knows of the extracted files) were found to be right.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
    """

    classes: int = 10
    mean: list[float] = field(default_factory=lambda: [0.4914, 0.4822, 0.4465])
    std: list[float] = field(default_factory=lambda: [0.2023, 0.1994, 0.2010])

    SITE: ClassVar[str] = "https://www.cs.toronto.edu/~kriz"
    FILE: ClassVar[str] = "cifar-10-python.tar.gz"
    PUBLISHED: ClassVar[str] = "md5:c58f30108f718f92721af3b95e74349a"
    MARKER: ClassVar[str | None] = "cifar-10-batches-py/test_batch"
    READER: ClassVar[str] = "CIFAR10"

    def decoding(self) -> dict[str, object]:
        """Nothing: the published arrays are used as they are."""
        return {}

    def decode(self, source: Path, part: str) -> Images:
        """Images of the train or test part, from the archive or the folder it was extracted in."""
        try:
            with nullcontext(source) if source.is_dir() else unpacked(source) as root:
                read = self._reader()(str(root), train=part == "train")
        except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError) as error:
            raise ProgipError(
                f"dataset '{self.name}': {source} does not hold the published batches, or one of "
                f"them is damaged ({error}); get {self.mirror}/{self.FILE} again"
            ) from error
        return Images(
            np.ascontiguousarray(read.data.transpose(0, 3, 1, 2)),
            np.asarray(read.targets, dtype=np.int64),
            np.arange(len(read.data)),
        )

    def _reader(self) -> Any:
        """torchvision's class; an own checksum of the archive replaces those of its files."""
        enable_torchvision()
        from torchvision import datasets

        published = getattr(datasets, self.READER)
        if self.checksum is None:
            return published
        unchecked = {
            name: [[file, None] for file, _ in getattr(published, name)]
            for name in ("train_list", "test_list")
        }
        meta = {**published.meta, "md5": None}
        return type(self.READER, (published,), {**unchecked, "meta": meta})


@dataclass(kw_only=True)
class Cifar100(Cifar10):
    """CIFAR-100: as CIFAR-10, with 100 (fine) classes.

    ``folder`` holds ``cifar-100-python.tar.gz``, or ``cifar-100-python`` as extracted from it.

    Source: see `Cifar10`.
    """

    classes: int = 100
    mean: list[float] = field(default_factory=lambda: [0.5071, 0.4865, 0.4409])
    std: list[float] = field(default_factory=lambda: [0.2673, 0.2564, 0.2762])

    FILE: ClassVar[str] = "cifar-100-python.tar.gz"
    PUBLISHED: ClassVar[str] = "md5:eb9058c3a382ffc7106e4002c42a8d85"
    MARKER: ClassVar[str | None] = "cifar-100-python/test"
    READER: ClassVar[str] = "CIFAR100"
