"""Executed runs whose shards are not whole yet, kept so that a stopped campaign loses few of them.

They lie beside the shards in files that readers ignore, and go once their shards are there.
"""

import logging
import os
import re
import socket
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from progip.storage import store
from progip.storage.store import Shard

log = logging.getLogger(__name__)

PATTERN = "_partial-*.parquet"
_NAME = re.compile(r"_partial-(\d+)-(\d+)-.*\.parquet")


def write_partial(folder: Path, rows: pa.Table) -> None:
    """Keep executed runs, in any order. Raises ProgipError where the folder cannot take them."""
    numbers = rows["run_id"].to_numpy()
    unique = f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
    first, last = int(numbers.min()), int(numbers.max())
    with store.locked(folder):  # else a process that tidies up may remove the draft
        store.write_table(folder / f"_partial-{first}-{last + 1}-{unique}.parquet", rows)


def read_partial(folder: Path, start: int, stop: int, schema: pa.Schema) -> pa.Table:
    """The kept runs among start..stop-1, each once, in order of runs.

    Files that are damaged or have other columns are removed, with a warning: their runs are redone.
    Call this with the shards of these runs claimed.
    """
    found = [schema.empty_table()]
    for path in sorted(folder.glob(PATTERN)):
        name = _NAME.fullmatch(path.name)
        if name is None or int(name[1]) >= stop or int(name[2]) <= start:
            continue
        try:
            rows = pq.read_table(path, page_checksum_verification=True)
            if rows.schema != schema:
                raise ValueError("it has other columns")
        except FileNotFoundError:
            continue  # its shards have just become whole elsewhere
        except (OSError, ValueError, pa.ArrowException) as error:
            log.warning("%s: %s; removed, its runs are redone", path, str(error).splitlines()[0])
            path.unlink(missing_ok=True)
            continue
        numbers = rows["run_id"].to_numpy()
        found.append(rows.filter((numbers >= start) & (numbers < stop)))
    table = pa.concat_tables(found)
    _, once = np.unique(table["run_id"].to_numpy(), return_index=True)
    return table.take(pa.array(once))


def kept_runs(folder: Path) -> int:
    """How many runs are kept in a folder, for a reader; what cannot be read counts as none."""
    numbers: set[int] = set()
    for path in folder.glob(PATTERN):
        try:
            numbers.update(pq.read_table(path, columns=["run_id"])["run_id"].to_pylist())
        except (OSError, ValueError, pa.ArrowException):
            continue
    shards = store.named_shards(folder)
    return sum(not any(s.start <= n < s.stop for s in shards) for n in numbers)


def remove_whole(folder: Path, done: Collection[Shard]) -> None:
    """Remove the files whose runs are all in shards. Call this under the folder's lock."""
    shards = sorted(done)
    for path in folder.glob(PATTERN):
        name = _NAME.fullmatch(path.name)
        if name is None:
            continue
        start, stop = int(name[1]), int(name[2])
        here = [shard for shard in shards if shard.stop > start]
        if all(begin >= stop or end <= start for begin, end in store.gaps(here, stop, stop)):
            path.unlink(missing_ok=True)
