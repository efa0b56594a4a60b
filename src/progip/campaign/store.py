"""Shards on disk: atomic Parquet files that are either whole or absent, and their manifest."""

import json
import logging
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from progip.errors import ProgipError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
EXECUTION = "_execution"  # pyarrow's dataset readers skip names with a leading underscore
CLEAN = "clean.parquet"  # in it: the golden rows of every image (``records.CLEAN``), for the report
_SHARD = re.compile(r"part-(\d{10})-(\d{10})\.parquet")


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


def remove_leftovers(folder: Path, busy: Collection[tuple[int, int]] = ()) -> None:
    """Remove temporary files that killed processes left; call this under the folder's lock.

    Args:
        busy: (start, stop) of shards that a living process may be writing; theirs stay.
    """
    for path in folder.glob(".*.tmp"):
        match = _SHARD.match(path.name[1:])
        if match is None or (int(match[1]), int(match[2])) not in busy:
            path.unlink(missing_ok=True)


def shards(folder: Path, schema: pa.Schema) -> list[Shard]:
    """The whole shards of a folder in order of runs.

    A file that is damaged, of another schema or of a wrong length is set aside under a name that
    readers ignore, with a warning; its runs count as not done. Call this under the folder's lock.
    """
    found: list[Shard] = []
    for path in sorted(folder.glob("part-*.parquet")):
        match = _SHARD.fullmatch(path.name)
        reason = _fault_of(path, match, schema, found[-1].stop if found else 0)
        if reason is None and match is not None:
            found.append(Shard(int(match[1]), int(match[2]), path))
        else:
            set_aside(path, reason or "")
    return found


def set_aside(path: Path, reason: str) -> None:
    """Give a shard a name that readers ignore, and say so."""
    aside = path.with_name(f"_aside-{path.name}")
    os.replace(path, aside)
    log.warning("%s: %s; set aside as %s, its runs are redone", path, reason, aside.name)


def _fault_of(path: Path, match: re.Match[str] | None, schema: pa.Schema, done: int) -> str | None:
    if match is None:
        return "not a shard's name"
    start, stop = int(match[1]), int(match[2])
    if start < done:
        return "overlaps the shard before it"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.schema_arrow != schema:
                return "has other columns than this version writes"
            if file.metadata.num_rows != stop - start:
                return f"holds {file.metadata.num_rows} rows, its name says {stop - start}"
            run_id = file.read()["run_id"].to_numpy()
        if not np.array_equal(run_id, np.arange(start, stop)):
            return f"does not hold the runs {start} to {stop - 1} that its name says"
    except (OSError, pa.ArrowException) as error:
        return f"damaged ({error})"
    return None


def named_shards(folder: Path) -> list[Shard]:
    """The shards of a folder in order of runs by their names alone, without a look inside."""
    matches = ((_SHARD.fullmatch(path.name), path) for path in folder.glob("part-*.parquet"))
    return sorted(Shard(int(m[1]), int(m[2]), path) for m, path in matches if m)


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
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ProgipError(
            f"{path} is damaged ({error}); the rows beside it are not touched. Move the folder "
            "away, or restore the file"
        ) from error
    return content


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a folder's manifest, unless it holds results of another identity (then raise)."""
    with locked(folder):
        check_same_identity(folder, content["identity"])
        write_json(folder / MANIFEST, content)


class OtherConfiguration(ProgipError):
    """The folder holds results of another configuration."""


def check_same_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse to write beside rows that another configuration made.

    Raises:
        OtherConfiguration: naming every setting that differs.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return
    differences = list(_differences(manifest["identity"], json.loads(json.dumps(identity)), ""))
    if differences:
        raise OtherConfiguration(
            f"{folder} holds results of another configuration and is not touched: "
            + "; ".join(differences)
            + ". Choose another campaign name (name=...) or move the folder away"
        )


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            pair = (old.get(name, "(absent)"), new.get(name, "(absent)"))
            yield from _differences(*pair, f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} was {old}, is now {new}"
