"""Runs one cell: plan -> execute -> judge -> store, shard by shard, continuing what is there."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from progip import records
from progip.campaign.cell_rows import CellRows
from progip.campaign.execution import Execution, Pace
from progip.campaign.golden import clean_rows
from progip.campaign.identities import cell_identity, execution_identity
from progip.campaign.planning import Planner
from progip.campaign.settings import CellSettings
from progip.campaign.sizing import known_seconds_per_run, remember_speed
from progip.campaign.subject import Subject, prepare
from progip.campaign.watching import Watch
from progip.storage import store
from progip.storage.claims import SharedWork
from progip.storage.manifests import check_same_identity, write_manifest
from progip.storage.progress import Progress

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
    folder = settings.folder
    execution_folder = settings.execution_folder
    execution_folder.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(folder, settings.label, settings.runs) as progress:
        _run(settings, config, accepted, execution_folder, progress)
    return folder


def _run(
    settings: CellSettings,
    config: dict[str, Any],
    accepted: Callable[[], None],
    execution_folder: Path,
    progress: Progress,
) -> None:
    folder = settings.folder
    subject = prepare(settings.subject)
    of_execution = execution_identity(settings, subject)
    of_cell = cell_identity(settings, subject)
    check_same_identity(folder, of_cell)
    check_same_identity(execution_folder, of_execution)
    accepted()
    settings.fault_model.select(subject.modules)
    if not (execution_folder / store.CLEAN).exists():
        store.write_table(execution_folder / store.CLEAN, clean_rows(subject.golden))
    subject.watched(settings.protection)  # refuses what would check nothing
    sites = subject.chosen(settings.fault_model, settings.fault_pass)
    planner = Planner(settings, subject, sites, execution_folder)
    faults = planner.population.size
    size = settings.sizing.size(settings.runs, faults)
    seconds = known_seconds_per_run(settings.execution_key)
    log.info("%s: %s", settings.execution_key, settings.sizing.announcement(size, faults, seconds))
    watch = Watch(settings, folder, size)
    schema = records.execution_schema(*settings.more_columns)
    pilot = settings.sampling.pilot_runs  # what comes after it is planned from its rows
    for runs in sorted({min(pilot, size), *watch.looks} - {0}):
        work = SharedWork(execution_folder, schema, runs, settings.shard_size)
        rows = CellRows(settings, subject, planner, folder, of_cell, work)
        planned = max([size, *(shard.stop for shard in work.done)])
        if not work.complete:
            rows.write_manifest(config, planned)
            write_manifest(
                execution_folder,
                {
                    "kind": "execution",
                    "schema_version": records.SCHEMA_VERSION,
                    "identity": of_execution,
                },
            )
            _execute(settings, subject, planner, work, rows, progress)
        elif not rows.complete:
            rows.write_manifest(config, planned)
        rows.judge_all(work.done)
        if runs in watch.looks and watch.enough(runs):
            size = runs
            break
    last = max([size, *(stop for _, stop in rows.judged)])
    if rows.planned != last:  # another process planned fewer, or a rule stopped the cell early
        rows.write_manifest(config, last)
    watch.record()
    log.info("%s: %d runs in %s", settings.names["cell"], work.runs_done, folder)


def _execute(
    settings: CellSettings,
    subject: Subject,
    planner: Planner,
    work: SharedWork,
    rows: CellRows,
    progress: Progress,
) -> None:
    """Execute the runs that no shard holds yet, and judge each shard as it comes."""
    execution = Execution(settings, subject, planner.population.sites)
    pace = Pace(settings.shard_size, known_seconds_per_run(settings.execution_key))
    begun, executed = time.monotonic(), 0
    progress.begin(work.runs_done)
    with closing(work.claims(pace.shards, shared=settings.part > 0)) as claims:
        for block in claims:
            plans = [planner.plan(start, stop) for start, stop in block]
            with pace.measured(sum(map(len, plans)), execution):
                table = execution.run(pa.concat_tables(plans))
            written = 0
            for start, stop in block:
                part = table.slice(written, stop - start)
                work.done.append(store.write_shard(work.folder, start, stop, part))
                progress.add(rows.judge(start, stop, part), work.runs_done)
                written += stop - start
            executed += written
    seconds = time.monotonic() - begun
    if executed:
        remember_speed(settings.execution_key, seconds / executed)
    log.info(
        "%s: %d runs executed in %.1f s, %.0f runs/s",
        settings.label, executed, seconds, executed / seconds,
    )  # fmt: skip
