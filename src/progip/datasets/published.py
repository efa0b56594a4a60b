"""Sets that are published as files: found in a folder, or downloaded; decoded once, then cached."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from progip.cache import ENVIRONMENT_VARIABLE
from progip.datasets.base import Dataset, Images
from progip.datasets.download import CHECKSUM, Remote, downloads, fetched, locked, staging, verified
from progip.datasets.npz import read_arrays
from progip.errors import ProgipError

DECODER = 1  # part of the key of decoded arrays: count up when decoding changes


@dataclass(kw_only=True)
class Published(Dataset):
    """A dataset that is published as an archive, or as one file a part.

    Where ``folder`` is given, the published file or its extracted form must be in it and nothing is
    downloaded; else the file is kept under ``datasets`` in the cache, which the environment
    variable PROGIP_CACHE moves. The decoded arrays are kept there too, by options and checksum.

    Attributes:
        folder: read from this local folder; null: download into the cache.
        url: a mirror: the address (http, https, file) of the folder that holds the file under its
            published name; null: the published address.
        checksum: of the (test) file, ``md5:HEX``, ``sha1:HEX`` or ``sha256:HEX``; null: the
            published one.

    Raises:
        ProgipError: on reading, for a missing folder, a file that is missing, unreachable, of
            another checksum, truncated or damaged.
    """

    folder: str | None = None
    url: str | None = None
    checksum: str | None = None

    SITE: ClassVar[str]  # the published address of the folder that holds the file(s)
    FILE: ClassVar[str]  # the published name of the archive
    PUBLISHED: ClassVar[str]  # its published checksum
    MARKER: ClassVar[str | None]  # TOP/FILE that tells the extracted form; None: there is none

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.url is None or self.url.startswith(("http://", "https://", "file://")),
            f"url={self.url}",
            "must begin with http://, https:// or file://",
        )
        self.require(
            self.url is None or self.folder is None,
            f"url={self.url}",
            f"has no effect beside folder={self.folder}; give one of the two",
        )
        self.require_checksum("checksum", self.checksum)

    def train_images(self) -> Images:
        """The published training images."""
        return self.read("train")

    def test_images(self) -> Images:
        """The published test images."""
        return self.read("test")

    @abstractmethod
    def decode(self, source: Path, part: str) -> Images:
        """Images of a part from ``source``: the verified file, or the folder it was extracted in.

        Raises:
            ProgipError: where something in it is missing or damaged.
        """

    @abstractmethod
    def decoding(self) -> dict[str, object]:
        """The options that change what ``decode`` returns, by name."""

    def remote(self, part: str) -> Remote:
        """The published file that holds a part."""
        return Remote(self.FILE, f"{self.mirror}/{self.FILE}", self.checksum or self.PUBLISHED)

    @property
    def mirror(self) -> str:
        """The address of the folder that files are downloaded from."""
        return (self.url or self.SITE).rstrip("/")

    def read(self, part: str) -> Images:
        """One published part, from the decoded arrays in the cache where they are there."""
        remote = self.remote(part)
        local = self._local(remote)
        identity = {
            "set": type(self).__name__,
            "part": part,
            "decoder": DECODER,
            "options": self.decoding(),
            "source": self._listing(local) if local and local.is_dir() else remote.checksum.lower(),
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        stored = downloads() / f"{type(self).__name__.lower()}-{part}-{key}.npz"
        with locked(stored.name):
            if stored.is_file():
                try:
                    return Images(**read_arrays(stored))
                except (ProgipError, TypeError):  # damaged: made again
                    stored.unlink()
            if local is None:
                source = fetched(remote)
            else:
                source = local if local.is_dir() else verified(local, remote)
            images = self.decode(source, part)
            self.require(len(images) > 0, f"the {part} part", f"of {source} holds no image")
            self._store(images, stored)
        return images

    def require_checksum(self, option: str, value: str | None) -> None:
        """Raise ProgipError where an option is neither null nor a checksum."""
        self.require(
            value is None or CHECKSUM.fullmatch(value) is not None,
            f"{option}={value}",
            "must be md5:HEX, sha1:HEX or sha256:HEX with all its digits",
        )

    def _local(self, remote: Remote) -> Path | None:
        """In ``folder``: the published file, else the folder itself; None where none is given."""
        if self.folder is None:
            return None
        folder = Path(self.folder).expanduser()
        self.require(folder.is_dir(), f"folder={self.folder}", "is not there or is no folder")
        if (folder / remote.filename).is_file():
            return folder / remote.filename
        self.require(
            self.MARKER is not None and (folder / self.MARKER).is_file(),
            f"{remote.filename}",
            f"{'' if self.MARKER is None else f'or its extracted form ({self.MARKER}) '}is not in "
            f"{folder}; get it from {remote.url}, or set folder=null to have it downloaded",
        )
        # a checksum that nothing is compared with would be a false promise
        self.require(
            self.checksum is None,
            f"checksum={self.checksum}",
            f"is for {remote.filename}, but {folder} holds its extracted form only; put the file "
            "there, or set checksum=null",
        )
        return folder

    def _store(self, images: Images, target: Path) -> None:
        """Write what ``read_arrays`` reads, whole or not at all; under ``locked(target.name)``."""
        try:
            with staging(target.name) as folder:
                written = folder / target.name
                np.savez(written, pixels=images.pixels, labels=images.labels, index=images.index)
                written.replace(target)
        except OSError as error:
            raise ProgipError(
                f"dataset '{self.name}': {target} cannot be written ({error.strerror or error}); "
                f"make room, or set {ENVIRONMENT_VARIABLE} to another cache folder"
            ) from error

    def _listing(self, folder: Path) -> str:
        """sha256 over names, sizes and times of the extracted files: notices a changed folder."""
        top = folder / str(self.MARKER).partition("/")[0]
        files = sorted(path for path in top.rglob("*") if path.is_file())
        lines = (f"{path} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
