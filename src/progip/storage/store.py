"""Shards on disk: atomic Parquet files that are either whole or absent, and JSON files.

Reading what is in a shard is in ``reading``, setting aside what is damaged in ``mending``.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from progip.errors import ProgipError

MANIFEST = "manifest.json"
EXECUTION = "_execution"  # pyarrow's dataset readers skip names with a leading underscore
CLEAN = "clean.parquet"  # in it: the golden rows of every image (``records.CLEAN``), for the report
UNPERTURBED = "unperturbed.parquet"  # beside it: the scores of a method without its perturbation
SHARD = re.compile(r"part-(\d{10})-(\d{10})\.parquet")


class OtherConfiguration(ProgipError):
    """The folder holds results of another configuration, code or version, and they are fine."""


class Shard(NamedTuple):
    """Runs start..stop-1 of a cell, in one file."""

    start: int
    stop: int
    path: Path


def execution_folder(cell: Path, correction: str | None = None) -> Path:
    """Where the runs of a cell's folder are executed: shared by the protections that only watch.

    Args:
        correction: name of the protection, if it is one that changes what is executed.
    """
    return cell.parent / (EXECUTION if correction is None else f"{EXECUTION}-{correction}")


def shard_path(folder: Path, start: int, stop: int) -> Path:
    """The file of runs start..stop-1."""
    return folder / f"part-{start:010d}-{stop:010d}.parquet"


def write_shard(folder: Path, start: int, stop: int, table: pa.Table) -> Shard:
    """Write one shard, as ``write_table`` does."""
    path = shard_path(folder, start, stop)
    write_table(path, table)
    return Shard(start, stop, path)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table whole or not at all: temporary file in the same folder, fsync, rename.

    Two processes may write the same file at once; each has a temporary file of its own.

    Raises:
        ProgipError: it cannot be written (a full disk, a quota, no permission), by its folder.
    """
    with _written_whole(path) as temporary, temporary.open("wb") as sink:
        # checksums of pages: a damaged byte is noticed, not only a missing one
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        sink.flush()
        os.fsync(sink.fileno())


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` at the end, or is removed."""
    unique = f"{socket.gethostname()}-{os.getpid()}"
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ProgipError(
            f"cannot write to {path.parent}: {error.strerror or error}. What was written before "
            "is whole; make room and give the same command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The one lock of a folder, freed by the system when its holder dies.

    Raises:
        ProgipError: the file system knows no locks, or the folder cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire()
    except OSError as error:
        raise ProgipError(
            f"cannot lock {folder}: {error.strerror or error}. Results need a folder that can be "
            "written to, on a file system with locks (flock; Lustre: mount option flock)"
        ) from error
    try:
        yield
    finally:
        lock.release()


def named_shards(folder: Path) -> list[Shard]:
    """The shards of a folder in order of runs by their names alone, without a look inside."""
    return sorted(filter(None, map(shard_of, folder.glob("part-*.parquet"))))


def shard_of(path: Path) -> Shard | None:
    """The runs that a file's name says it holds; None where it is no shard's name."""
    match = SHARD.fullmatch(path.name)
    return Shard(int(match[1]), int(match[2]), path) if match else None


def gaps(done: list[Shard], runs: int, size: int) -> Iterator[tuple[int, int]]:
    """The (start, stop) of shards of at most ``size`` runs that are missing below ``runs``."""
    position = 0
    for shard in [*done, Shard(runs, runs, Path())]:
        end = min(shard.start, runs)
        while position < end:
            stop = min((position // size + 1) * size, end)
            yield position, stop
            position = stop
        position = max(position, shard.stop)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically. Raises ProgipError where the folder cannot take it."""
    with _written_whole(path) as temporary, temporary.open("w") as sink:
        sink.write(json.dumps(content, indent=1) + "\n")
        sink.flush()
        os.fsync(sink.fileno())


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file, None where there is none.

    Raises:
        ProgipError: the file is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ProgipError(
            f"{path} is damaged ({error}); the rows beside it are not touched. Move the folder "
            "away, or restore the file"
        ) from error
    return content
