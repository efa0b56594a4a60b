"""Published files: downloaded once into the cache with progress and checksum, unpacked safely."""

import re
import shutil
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from progip.cache import ENVIRONMENT_VARIABLE, cache_root
from progip.errors import ProgipError

CHECKSUM = re.compile(r"(md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})", re.IGNORECASE)
CHUNK = 1 << 18  # bytes; pooch's own 1 KiB makes the progress bar the slowest part


@dataclass(frozen=True)
class Remote:
    """One published file.

    Attributes:
        filename: its published name.
        url: where to download it: http, https or file.
        checksum: ``md5:HEX``, ``sha1:HEX`` or ``sha256:HEX`` of its content.
    """

    filename: str
    url: str
    checksum: str


def downloads() -> Path:
    """The folder of the downloaded files and of what was decoded from them; made when missing.

    Raises:
        ProgipError: where it cannot be written.
    """
    folder = cache_root() / "datasets"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProgipError(
            f"the cache folder {folder} cannot be made ({error.strerror}); set the environment "
            f"variable {ENVIRONMENT_VARIABLE} to a folder that can be written"
        ) from error
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time works on ``name`` in the cache; the others wait.

    Raises:
        ProgipError: where the cache cannot be written.
    """
    lock = FileLock(downloads() / f".{name}.lock")
    try:
        lock.acquire()
    except OSError as error:
        raise ProgipError(
            f"the cache folder {downloads()} cannot be written ({error}); set the environment "
            f"variable {ENVIRONMENT_VARIABLE} to one that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging(name: str) -> Iterator[Path]:
    """An empty folder inside the cache that is gone afterwards; to be used under ``locked(name)``.

    Its name is fixed, so what a killed process left in it is removed by the next one.
    """
    folder = downloads() / f".{name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fetched(remote: Remote) -> Path:
    """The file in the cache, downloaded where it is not there or is damaged.

    Raises:
        ProgipError: where it cannot be had, or what was sent has another checksum; nothing of it
            stays behind then.
    """
    import pooch

    target = downloads() / remote.filename
    with locked(remote.filename):
        if target.is_file() and pooch.hashes.hash_matches(target, remote.checksum):
            return target
        pooch.get_logger().setLevel("WARNING")  # its "Downloading ..." names the staging folder
        try:
            with staging(remote.filename) as folder:
                arrived = pooch.retrieve(
                    remote.url,
                    known_hash=remote.checksum,
                    fname=remote.filename,
                    path=folder,
                    downloader=_download,
                )
                Path(arrived).chmod(0o644)  # pooch's temporary file is for the owner only
                Path(arrived).replace(target)
        except OSError as error:  # requests' exceptions are among them
            raise ProgipError(
                f"{remote.filename} is not at {target} and cannot be downloaded from {remote.url} "
                f"({_reason(error)}); get it by other means and set the dataset's option folder to "
                f"where it is, or set {ENVIRONMENT_VARIABLE} to a cache that holds it"
            ) from error
        except ValueError as error:  # pooch: the checksum differs
            raise ProgipError(
                f"{remote.filename} as sent by {remote.url} is truncated or another file: it has "
                f"not the checksum {remote.checksum}; try again, use another url, or set the "
                "dataset's option checksum if this very file is wanted"
            ) from error
    return target


def verified(path: Path, remote: Remote) -> Path:
    """``path``, a file that the user put there, after its checksum was compared.

    Raises:
        ProgipError: where the checksum differs.
    """
    import pooch

    found = pooch.file_hash(path, alg=remote.checksum.partition(":")[0].lower())
    if found.lower() != remote.checksum.partition(":")[2].lower():
        raise ProgipError(
            f"{path} is truncated or another file: its checksum is {found}, expected "
            f"{remote.checksum}; get it again from {remote.url}, or set the dataset's option "
            "checksum if this very file is wanted"
        )
    return path


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """A folder with the content of a tar archive, gone afterwards.

    Raises:
        ProgipError: where the archive is damaged, or would write outside of that folder.
    """
    name = f"{archive.name}.unpacked"
    with locked(name), staging(name) as folder:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise ProgipError(
                f"{archive} cannot be unpacked ({_reason(error)}): it is truncated or damaged, or "
                f"the cache {downloads()} is full; get it again or make room"
            ) from error
        yield folder


def _download(url: str, output_file: str, caller: object) -> None:
    import pooch
    from tqdm.auto import tqdm

    if urlsplit(url).scheme == "file":
        shutil.copyfile(urllib.request.url2pathname(urlsplit(url).path), output_file)
        return
    # total=1: pooch tests the bar's truth, which tqdm refuses without a total
    label = Path(urlsplit(url).path).name
    with tqdm(total=1, unit="B", unit_scale=True, desc=label, disable=None) as bar:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK)(url, output_file, caller)


def _reason(error: BaseException) -> str:
    """What went wrong first, on one line: requests wraps it three times."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join((str(error) or type(error).__name__).split())
