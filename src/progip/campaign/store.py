"""Shards on disk: atomic Parquet files that are either whole or absent, and their manifest."""

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from progip.errors import ProgipError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_SHARD = re.compile(r"part-(\d{10})-(\d{10})\.parquet")


class Shard(NamedTuple):
    """Runs start..stop-1 of a cell, in one file."""

    start: int
    stop: int
    path: Path


def shard_path(folder: Path, start: int, stop: int) -> Path:
    return folder / f"part-{start:010d}-{stop:010d}.parquet"


def write_shard(folder: Path, start: int, stop: int, table: pa.Table) -> Shard:
    """Write one shard: temporary file in the same folder, fsync, rename."""
    path = shard_path(folder, start, stop)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as sink:
        pq.write_table(table, sink, compression="zstd")
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(temporary, path)
    return Shard(start, stop, path)


def shards(folder: Path, schema: pa.Schema) -> list[Shard]:
    """The whole shards of a folder in order of runs.

    A file that is damaged, of another schema or of a wrong length is set aside under a name that
    readers ignore, with a warning; its runs count as not done.
    """
    found: list[Shard] = []
    for path in sorted(folder.glob("part-*.parquet")):
        match = _SHARD.fullmatch(path.name)
        reason = _fault_of(path, match, schema, found[-1].stop if found else 0)
        if reason is None and match is not None:
            found.append(Shard(int(match[1]), int(match[2]), path))
        else:
            aside = path.with_name(f"_aside-{path.name}")
            os.replace(path, aside)
            log.warning("%s: %s; set aside as %s, its runs are redone", path, reason, aside.name)
    return found


def _fault_of(path: Path, match: re.Match[str] | None, schema: pa.Schema, done: int) -> str | None:
    if match is None:
        return "not a shard's name"
    start, stop = int(match[1]), int(match[2])
    if start < done:
        return "overlaps the shard before it"
    try:
        file = pq.ParquetFile(path)
        if file.schema_arrow != schema:
            return "has other columns than this version writes"
        if file.metadata.num_rows != stop - start:
            return f"holds {file.metadata.num_rows} rows, its name says {stop - start}"
        file.read(columns=["run_id"])
    except (OSError, pa.ArrowException) as error:
        return f"damaged ({error})"
    return None


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
    """Write a JSON file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


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


def check_same_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse to write beside rows that another configuration made.

    Raises:
        ProgipError: naming every setting that differs.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return
    differences = list(_differences(manifest["identity"], json.loads(json.dumps(identity)), ""))
    if differences:
        raise ProgipError(
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
