"""Runs one cell: plan -> execute -> judge -> store, shard by shard, continuing what is there."""

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from progip import records
from progip.campaign import store
from progip.campaign.cell_rows import SCHEMA_VERSION, CellRows
from progip.campaign.claims import SharedWork
from progip.campaign.execution import Execution, Pace
from progip.campaign.progress import Progress
from progip.campaign.settings import CellSettings, identity
from progip.campaign.subject import Subject, prepare

log = logging.getLogger(__name__)

EXECUTION = "_execution"  # pyarrow's dataset readers skip names with a leading underscore


def run_cell(settings: CellSettings, config: dict[str, Any]) -> Path:
    """Bring a cell to its planned number of runs; a finished cell returns at once.

    Protections of the same execution share its runs: what another one has executed is judged, not
    executed again. Several processes on one cell share its shards.

    Args:
        config: the resolved configuration, for the manifest.

    Returns:
        the cell's folder, with ``part-*.parquet`` (``records.RESULT``) and ``manifest.json``.

    Raises:
        ProgipError: for every mistake of the user; nothing written before is touched.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder = settings.folder
    execution_folder = folder.parent / EXECUTION
    execution_folder.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(folder, settings.label, settings.runs) as progress:
        _run(settings, config, execution_folder, progress)
    return folder


def _run(
    settings: CellSettings, config: dict[str, Any], execution_folder: Path, progress: Progress
) -> None:
    folder = settings.folder
    subject = prepare(settings.subject)
    execution_identity = {
        **subject.identity,
        "population": settings.population,
        "fault_model": identity(settings.fault_model),
        "fault_pass": settings.fault_pass,
        "seed": settings.seed,
    }
    cell_identity = {**execution_identity, "protection": identity(settings.protection)}
    store.check_same_identity(folder, cell_identity)
    store.check_same_identity(execution_folder, execution_identity)
    settings.fault_model.select(subject.modules)
    work = SharedWork(execution_folder, records.EXECUTION, settings.runs, settings.shard_size)
    rows = CellRows(settings, subject, folder, cell_identity, work)
    planned = max([settings.runs, *(shard.stop for shard in work.done)])
    if work.complete and rows.complete and rows.planned == planned:
        log.info("%s: all %d runs are there already", settings.names["cell"], work.runs_done)
        return
    rows.write_manifest(config, planned)
    if not work.complete:
        store.write_manifest(
            execution_folder,
            {
                "kind": "execution",
                "schema_version": SCHEMA_VERSION,
                "identity": execution_identity,
            },
        )
        _execute(settings, subject, work, rows, progress)
    rows.judge_all(work.done)
    last = max(shard.stop for shard in work.done)
    if rows.planned < last:  # another process planned fewer meanwhile
        rows.write_manifest(config, last)
    log.info("%s: %d runs in %s", settings.names["cell"], work.runs_done, folder)


def _execute(
    settings: CellSettings,
    subject: Subject,
    work: SharedWork,
    rows: CellRows,
    progress: Progress,
) -> None:
    """Execute the runs that no shard holds yet, and judge each shard as it comes."""
    sites = settings.fault_model.select(subject.sites[settings.fault_pass])
    execution = Execution(settings, subject, sites)
    images = len(subject.images[settings.population])
    pace = Pace(settings.shard_size)
    begun, executed = time.monotonic(), 0
    progress.begin(work.runs_done)
    with closing(work.claims(pace.shards)) as claims:
        for block in claims:
            plans = [
                settings.fault_model.plan(
                    sites, images, settings.seed, settings.fault_key, start, stop
                )
                for start, stop in block
            ]
            with pace.measured(sum(map(len, plans))):
                table = execution.run(pa.concat_tables(plans))
            written = 0
            for start, stop in block:
                part = table.slice(written, stop - start)
                work.done.append(store.write_shard(work.folder, start, stop, part))
                progress.add(rows.judge(start, stop, part), work.runs_done)
                written += stop - start
            executed += written
    seconds = time.monotonic() - begun
    log.info(
        "%s: %d runs executed in %.1f s, %.0f runs/s",
        settings.label, executed, seconds, executed / seconds,
    )  # fmt: skip
