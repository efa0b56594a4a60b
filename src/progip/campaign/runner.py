"""Runs one cell: plan -> execute -> judge -> store, shard by shard, continuing what is there."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from tqdm import tqdm

from progip import records
from progip.campaign import provenance, store
from progip.campaign.judge import golden_evidence, judge
from progip.campaign.planning import Planner
from progip.campaign.settings import CellSettings, identity
from progip.campaign.sizing import known_seconds_per_run, remember_speed
from progip.campaign.subject import Subject, prepare
from progip.campaign.watching import Watch
from progip.engine.reference import ReferenceExecutor

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
EXECUTION = "_execution"  # pyarrow's dataset readers skip names with a leading underscore
HEARTBEAT_SECONDS = 30.0


def run_cell(settings: CellSettings, config: dict[str, Any]) -> Path:
    """Bring a cell to its planned number of runs; a finished cell returns at once.

    Protections of the same execution share its runs: what another one has executed is judged, not
    executed again.

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
    subject = prepare(settings.subject)
    execution_identity = {
        **subject.identity,
        "population": settings.population,
        "fault_model": identity(settings.fault_model),
        "fault_pass": settings.fault_pass,
        "seed": settings.seed,
        "sampling": identity(settings.sampling),
    }
    cell_identity = {**execution_identity, "protection": identity(settings.protection)}
    store.check_same_identity(folder, cell_identity)
    store.check_same_identity(execution_folder, execution_identity)
    settings.fault_model.select(subject.modules)
    sites = settings.fault_model.select(subject.sites[settings.fault_pass])
    planner = Planner(settings, subject, sites, execution_folder)
    faults = planner.population.size
    size = settings.sizing.size(settings.runs, faults)
    seconds = known_seconds_per_run(settings.fault_key)
    log.info("%s: %s", settings.fault_key, settings.sizing.announcement(size, faults, seconds))
    watch = Watch(settings, folder, size)
    for runs in watch.looks:
        with FileLock(execution_folder / ".lock"):
            done = _execute(settings, subject, planner, execution_folder, execution_identity, runs)
        with FileLock(folder / ".lock"):
            _judge(settings, subject, planner, folder, cell_identity, config, done, runs)
            if watch.enough(runs):
                break
    watch.record()
    return folder


def _execute(
    settings: CellSettings,
    subject: Subject,
    planner: Planner,
    folder: Path,
    identity_: dict[str, Any],
    runs: int,
) -> list[store.Shard]:
    """Execute the runs below ``runs`` that no shard holds yet; returns every shard."""
    done = store.shards(folder, records.EXECUTION)
    missing = list(planner.pieces(store.gaps(done, runs, settings.shard_size)))
    sites = planner.population.sites
    if not missing:
        log.info("%s: all %d runs are executed already", settings.fault_key, runs)
        return done
    store.write_json(
        folder / store.MANIFEST,
        {"kind": "execution", "schema_version": SCHEMA_VERSION, "identity": identity_},
    )
    images = subject.images[settings.population]
    executor = ReferenceExecutor(
        subject.pipeline, sites, settings.fault_pass, images, settings.subject.batch_size
    )
    golden = subject.evaluation(settings.population)
    total = sum(stop - start for start, stop in missing)
    begun = beat = time.monotonic()
    finished = 0
    with tqdm(total=total, desc=settings.fault_key, unit="run", disable=None) as bar:
        for start, stop in missing:
            plan = planner.plan(start, stop)
            table = observed_table(plan, golden, executor.run(plan))
            done.append(store.write_shard(folder, start, stop, table))
            bar.update(stop - start)
            finished += stop - start
            now = time.monotonic()
            if bar.disable and (now - beat > HEARTBEAT_SECONDS):
                beat, rate = now, finished / (now - begun)
                left = (total - finished) / rate
                log.info(
                    "%s: %d of %d runs, %.0f runs/s, %.0f s left",
                    settings.fault_key, finished, total, rate, left,
                )  # fmt: skip
    seconds = time.monotonic() - begun
    remember_speed(settings.fault_key, seconds / total)
    log.info(
        "%s: %d runs executed in %.1f s, %.0f runs/s",
        settings.fault_key, total, seconds, total / seconds,
    )  # fmt: skip
    return sorted(done)


def observed_table(plan: pa.Table, golden: pa.Table, observed: dict[str, np.ndarray]) -> pa.Table:
    """Plan, golden and faulty columns of the same runs as one ``records.EXECUTION`` table."""
    samples = plan["sample_index"].to_numpy()
    columns: dict[str, Any] = {name: plan[name] for name in records.PLAN.names}
    columns["label"] = golden["label"].to_numpy()[samples]
    for name in ("class", "score", "grad_max"):
        columns[f"golden_{name}"] = golden[name].to_numpy()[samples]
        columns[f"faulty_{name}"] = observed[name]
    for name in records.OBSERVED.names:
        if name not in columns:
            columns[name] = observed[name]
    return pa.table(columns, schema=records.EXECUTION)


def _judge(
    settings: CellSettings,
    subject: Subject,
    planner: Planner,
    folder: Path,
    identity_: dict[str, Any],
    config: dict[str, Any],
    executed: list[store.Shard],
    runs: int,
) -> None:
    """Write the cell's rows for executed runs that have none yet, and its manifest.

    Where a rate is watched, runs beyond the look (of another protection's cell) are left alone.
    """
    protection = settings.protection
    thresholds = protection.calibrate(
        subject.clean, gradient_vanishes=subject.method.gradient_vanishes
    )
    clean = protection.judge(golden_evidence(subject.evaluation(settings.population)), thresholds)
    names = settings.names
    layers = planner.population.sites
    judged = store.shards(folder, records.RESULT)
    held = judged if settings.stopping.quantity else executed
    runs = max([runs, *(shard.stop for shard in held)])
    store.write_json(
        folder / store.MANIFEST,
        {
            "kind": "cell",
            "schema_version": SCHEMA_VERSION,
            "cell": names,
            "runs": runs,
            "seed": settings.seed,
            "identity": identity_,
            "config_hash": hashlib.sha256(
                json.dumps(identity_, sort_keys=True).encode()
            ).hexdigest(),
            "config": config,
            "sampling": planner.describe(),
            "thresholds": {"ood": subject.ood_threshold, **thresholds},
            "clean": {"images": len(clean.alarm), "alarms": int(clean.alarm.sum())},
            "base_metrics": subject.base_metrics,
            "weights_sha256": identity_["weights_sha256"],
            "data": identity_["data"],
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "hardware": provenance.hardware(settings.subject.torch_device()),
            "layers": [
                {"layer": s.layer, "call": s.call, "type": s.kind, "neurons": s.neurons,
                 "macs": s.macs}
                for s in layers
            ],
        },
    )  # fmt: skip
    for start, stop in store.gaps(judged, runs, settings.shard_size):
        rows = judge(
            _rows(executed, start, stop), names, protection, thresholds, subject.ood_threshold
        )
        store.write_shard(folder, start, stop, rows)
    log.info("%s: %d runs in %s", names["cell"], runs, folder)


def _rows(executed: list[store.Shard], start: int, stop: int) -> pa.Table:
    """``records.EXECUTION`` of runs start..stop-1, from one or more shards."""
    return pa.concat_tables(
        pq.read_table(s.path).slice(max(start - s.start, 0), stop - max(start, s.start))
        for s in executed
        if s.start < stop and s.stop > start
    )
