"""SVHN, the street view house numbers, read by torchvision."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from progip.compat import enable_torchvision
from progip.datasets.base import Images
from progip.datasets.download import Remote
from progip.datasets.published import Published
from progip.errors import ProgipError


@dataclass(kw_only=True)
class Svhn(Published):
    """SVHN in its cropped form: 73,257 training and 26,032 test digits, RGB, 32x32.

    ``folder`` holds ``test_32x32.mat`` and, for training, ``train_32x32.mat``. The published label
    10 stands for the digit 0 and becomes label 0.

    Attributes:
        checksum: of ``test_32x32.mat``; null: the published one.
        checksum_train: of ``train_32x32.mat``; null: the published one.

    Source: Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning,
    2011, http://ufldl.stanford.edu/housenumbers
    """

    classes: int = 10
    mean: list[float] = field(default_factory=lambda: [0.4377, 0.4438, 0.4728])
    std: list[float] = field(default_factory=lambda: [0.1980, 0.2010, 0.1970])
    checksum_train: str | None = None

    SITE: ClassVar[str] = "http://ufldl.stanford.edu/housenumbers"
    FILES: ClassVar[dict[str, str]] = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
    CHECKSUMS: ClassVar[dict[str, str]] = {
        "train": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        "test": "md5:eb5a983be6a315427106f1b164d9cef3",
    }
    MARKER: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_checksum("checksum_train", self.checksum_train)

    def remote(self, part: str) -> Remote:
        """The published file of the train or test part."""
        given = {"train": self.checksum_train, "test": self.checksum}[part]
        file = self.FILES[part]
        return Remote(file, f"{self.mirror}/{file}", given or self.CHECKSUMS[part])

    def decoding(self) -> dict[str, object]:
        """Nothing: the published arrays are used as they are."""
        return {}

    def decode(self, source: Path, part: str) -> Images:
        """Images from a ``.mat`` file, whose checksum was compared before."""
        enable_torchvision()
        from torchvision.datasets import SVHN

        # None: torchvision need not compare the checksum a second time
        entry = {part: ["", source.name, None]}
        reader = type("SVHN", (SVHN,), {"split_list": entry})
        try:
            read = reader(str(source.parent), split=part)
        except (RuntimeError, OSError, LookupError, ValueError, TypeError, zlib.error) as error:
            raise ProgipError(
                f"dataset '{self.name}': {source} is no file of images in SVHN's published form "
                f"({error}); get it again from {self.mirror}"
            ) from error
        return Images(
            np.ascontiguousarray(read.data),
            np.atleast_1d(read.labels).astype(np.int64),
            np.arange(len(read.data)),
        )
