"""Processes to be killed: each runs one cell and starts from a server that has imported torch."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import schemas
import torch

from progip.campaign import pace
from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.config import cell_settings, composed, resolved
from progip.fault_models.base import MAP
from progip.storage import store
from progip.storage.crash_log import failures_recorded

MAP_SCHEMA = pa.schema(MAP)
ROOT = Path(__file__).resolve().parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["progip.campaign.runner", "progip.config", "sklearn.datasets"])

Cell = tuple[CellSettings, dict[str, Any]]
Prepare = Callable[[], None]


def small_cell(folder: Path, *overrides: str) -> Cell:
    """A cell below a folder, as ``run_cell`` takes it; the reference starts soonest."""
    small = [
        "executor=reference",
        "batch_size=16",
        "shard_size=20",
        "runs=200",
        "threads=1",
        f"outputs={folder}",
    ]
    cfg = composed([*small, *overrides], ROOT / "conf")
    return cell_settings(cfg), resolved(cfg)


def start(cell: Cell, prepare: Prepare | None = None) -> BaseProcess:
    """Begin the cell in a process of its own."""
    process = SERVER.Process(target=work, args=(cell, prepare))
    process.start()
    return process


def finish(cell: Cell) -> None:
    """Run the cell to its end in a process of its own, as the user's same command would."""
    process = start(cell)
    process.join(240)
    assert process.exitcode == 0


def kill(process: BaseProcess, after: float, number: int = signal.SIGKILL) -> int | None:
    """Send a signal after some seconds; returns the exit code."""
    process.join(after)
    if process.is_alive():
        os.kill(process.pid or 0, number)
    process.join(200)
    return process.exitcode


def slow_writes() -> None:
    """Make a file take a while to be written, in two pieces, so that many kills tear one.

    Blocks are one shard or a few, so that there are many moments between and within them; some keep
    what is executed of them.
    """
    pace.BLOCK_SECONDS = random.choice([0.0, 0.2])
    pace.KEEP_SECONDS = random.choice([0.02, 30.0])  # the first: kept runs of shards not yet whole
    write = pq.write_table

    def in_pieces(table: pa.Table, sink: Any, **options: Any) -> None:
        buffer = pa.BufferOutputStream()
        write(table, buffer, **options)
        content = buffer.getvalue().to_pybytes()
        half = random.randrange(len(content))
        sink.write(content[:half])
        sink.flush()
        time.sleep(0.03)
        sink.write(content[half:])

    pq.write_table = in_pieces


def result(cell: Cell) -> pa.Table:
    """Every row of the cell, sorted; whole, each run once."""
    return sorted_rows(cell[0].folder)


def sorted_rows(folder: Path) -> pa.Table:
    """Every row below a cell's folder in order of runs; fails on a file that is not whole."""
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    table = pa.concat_tables(parts).sort_by("run_id").combine_chunks()
    maps = not folder.name.startswith("_") and table["map_id"].null_count == 0
    wanted = schemas.result_schema(MAP_SCHEMA) if maps else schemas.RESULT
    table = table.select(
        [
            name
            for name, column in zip(table.schema.names, table.columns, strict=True)
            if column.null_count == 0
        ]
    )
    assert table.schema == wanted
    return table


def same_bytes(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same bits, NaN and -0 included."""
    return _bytes(one) == _bytes(other)


def litter(cell: Cell) -> list[str]:
    """Files that a process must not leave behind; what it keeps of shards not whole is none."""
    folder = cell[0].folder
    places = (folder, folder.parent / "_execution")
    patterns = (".*.tmp", ".claim-*", ".running-*", "_aside-*")
    return [path.name for place in places for p in patterns for path in place.glob(p)]


def held_runs(cell: Cell) -> int:
    """Runs that are executed and on disk."""
    shards = store.named_shards(cell[0].folder.parent / "_execution")
    return sum(shard.stop - shard.start for shard in shards)


def work(cell: Cell, prepare: Prepare | None = None) -> None:
    """What a process does; ``prepare`` comes first."""
    torch.set_num_threads(1)
    if prepare:
        prepare()
    with failures_recorded(cell[0].folder):
        run_cell(*cell)


def _bytes(table: pa.Table) -> list[bytes]:
    columns = [column.to_numpy() for column in table.columns]
    return [repr(c.tolist()).encode() if c.dtype == object else c.tobytes() for c in columns]
