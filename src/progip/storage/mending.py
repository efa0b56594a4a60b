"""What only the writer of a folder does, under its lock: sets damaged files aside, tidies up.

Readers (report, status, replay) rename and remove nothing; they use ``reading``.
"""

import logging
import os
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from progip.storage import store
from progip.storage.reading import DamagedShard, read_shard
from progip.storage.store import Shard

log = logging.getLogger(__name__)


def mended_shards(folder: Path, schema: pa.Schema) -> list[Shard]:
    """The whole shards of a folder in order of runs; damaged ones are set aside, with a warning.

    Their runs count as not done. So do those of a file whose rows are not what its name says, or
    that overlaps the shard before it. Call this under the folder's lock.

    Raises:
        OtherConfiguration: a whole file has other columns; then nothing at all is renamed.
        ProgipError: a file cannot be read for a reason that is not in it.
    """
    found: list[Shard] = []
    damaged: list[DamagedShard] = []
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            shard, _ = read_shard(path, schema, exactly=True)
            if found and shard.start < found[-1].stop:
                raise DamagedShard(path, "overlaps the shard before it")
        except DamagedShard as damage:
            damaged.append(damage)
        else:
            found.append(shard)
    for file in damaged:
        set_aside(file.path, file.reason)
    return found


def set_aside(path: Path, reason: str) -> None:
    """Give a shard a name that readers ignore, and say so. Call this under the folder's lock."""
    aside = path.with_name(f"_aside-{path.name}")
    os.replace(path, aside)
    log.warning("%s: %s; set aside as %s, its runs are redone", path, reason, aside.name)


def remove_leftovers(folder: Path, busy: Collection[tuple[int, int]] = ()) -> None:
    """Remove temporary files that killed processes left; call this under the folder's lock.

    Args:
        busy: (start, stop) of shards that a living process may be writing; theirs stay.
    """
    for path in folder.glob(".*.tmp"):
        match = store.SHARD.match(path.name[1:])
        if match is None or (int(match[1]), int(match[2])) not in busy:
            path.unlink(missing_ok=True)
