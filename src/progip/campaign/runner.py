"""Runs one cell: plan -> execute -> judge -> store, shard by shard, continuing what is there."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from progip.campaign import pace as pace_module
from progip.campaign.block import Block
from progip.campaign.cell import Cell
from progip.campaign.execution import Execution
from progip.campaign.interruption import Interruption
from progip.campaign.pace import Pace
from progip.campaign.settings import CellSettings
from progip.campaign.sizing import Speed, known_speed, remember_speed
from progip.storage import store
from progip.storage.progress import Progress
from progip.storage.shard_queue import ShardQueue

log = logging.getLogger(__name__)


def run_cell(
    settings: CellSettings, config: dict[str, Any], accepted: Callable[[], None] = lambda: None
) -> Path:
    """Bring a cell to its planned number of runs; a finished cell returns at once.

    Protections that only watch share executed runs: what another one has executed is judged, not
    executed again. Correcting ones have runs of their own, with the same faults. Several processes
    on one cell share its shards.

    Args:
        config: the resolved configuration, for the manifest.
        accepted: called once it is clear that the folder holds no other configuration.

    Returns:
        the cell's folder, with ``part-*.parquet`` (``records.RESULT`` and what the fault model
        adds) and ``manifest.json``.

    Raises:
        ProgipError: for every mistake of the user; nothing written before is touched.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    for folder in (settings.execution_folder, settings.folder):
        folder.mkdir(parents=True, exist_ok=True)
    declared = settings.outcome.declared
    flags = [event.flag for event in declared.failures]
    with Progress(settings.folder, settings.label, settings.runs, flags, declared.base) as progress:
        cell = Cell(settings, config)
        cell.open(accepted)
        progress.planned = cell.planned
        done, executing = 0, False
        for runs in cell.stages:
            work = cell.stage(runs)
            if not work.complete:
                executing = True
                _execute(cell, work, progress)
            cell.judge_all(work)
            done = work.runs_done
            if cell.enough(runs):
                break
        cell.close()
    how = "" if executing else "; none had to be executed"
    log.info("%s: %s runs in %s%s", settings.names["cell"], f"{done:,}", settings.folder, how)
    return settings.folder


def _execute(cell: Cell, work: ShardQueue, progress: Progress) -> None:
    """Execute the runs that no shard holds yet, and judge each shard as it comes."""
    settings, planner = cell.settings, cell.planner
    begun, executed = time.monotonic(), 0
    execution = Execution(settings, cell.subject, planner.space.sites, planner.roulette())
    start = time.monotonic() - begun
    known = known_speed(settings.execution_key)
    pace = Pace(settings.shard_size, known.per_run if known else None)
    progress.begin(work.runs_done)
    with closing(work.claims(pace.shards, shared=settings.part > 0)) as claims:
        for shards in claims:
            plan = pa.concat_tables(planner.plan(start, stop) for start, stop in shards)
            block = Block(work.folder, shards, plan, execution.schema)
            progress.executed(block.kept)
            executed += len(block.missing)
            _execute_block(cell, block, execution, pace, work, progress)
            work.remove_partial()
    seconds = time.monotonic() - begun - start
    if executed:
        remember_speed(settings.execution_key, Speed(start, seconds / executed))
    log.info(
        "%s: %s runs executed in %.1f s, %.0f runs/s",
        settings.label, f"{executed:,}", seconds, executed / seconds,
    )  # fmt: skip


def _execute_block(
    cell: Cell,
    block: Block,
    execution: Execution,
    pace: Pace,
    work: ShardQueue,
    progress: Progress,
) -> None:
    """Execute what is missing of a block; a signal ends it once all that is executed is stored."""
    runs, golden, begun = len(block.missing), 0.0, time.monotonic()
    with Interruption() as interruption:
        _store_whole(cell, block, work, progress)
        while len(block.missing):
            until = time.monotonic() + pace_module.KEEP_SECONDS

            def go_on(count: int, until: float = until) -> bool:
                progress.executed(count)
                return interruption.number is None and time.monotonic() < until

            table = execution.run(block.missing, go_on)
            golden += execution.golden_seconds
            block.add(table)
            _store_whole(cell, block, work, progress)
            if len(block.missing):
                block.keep(table)
            if interruption.number is not None:
                log.info(
                    "%s: stopped with %d of %d runs executed and stored",
                    cell.settings.label, progress.reached, progress.planned,
                )  # fmt: skip
            interruption.check()
    if runs:
        pace.measured(runs, time.monotonic() - begun, golden)


def _store_whole(cell: Cell, block: Block, work: ShardQueue, progress: Progress) -> None:
    """Write and judge every shard of a block that is whole."""
    for start, stop, rows in block.whole():
        work.done.append(store.write_shard(work.folder, start, stop, rows))
        progress.add(cell.judge(start, stop, rows), work.runs_done)
