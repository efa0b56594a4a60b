"""Runs one cell: plan -> execute -> judge -> store, shard by shard, continuing what is there."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from tqdm import tqdm

from progip import records
from progip.campaign import provenance, store
from progip.campaign.execution import Blocks, Execution
from progip.campaign.judge import golden_evidence, judge
from progip.campaign.settings import CellSettings, identity
from progip.campaign.subject import Subject, prepare

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
    }
    cell_identity = {**execution_identity, "protection": identity(settings.protection)}
    store.check_same_identity(folder, cell_identity)
    store.check_same_identity(execution_folder, execution_identity)
    settings.fault_model.select(subject.modules)
    with FileLock(execution_folder / ".lock"):
        done = _execute(settings, subject, execution_folder, execution_identity)
    with FileLock(folder / ".lock"):
        _judge(settings, subject, folder, cell_identity, config, done)
    return folder


def _execute(
    settings: CellSettings, subject: Subject, folder: Path, identity_: dict[str, Any]
) -> list[store.Shard]:
    """Execute the runs that no shard holds yet; returns every shard."""
    done = store.shards(folder, records.EXECUTION)
    missing = list(store.gaps(done, settings.runs, settings.shard_size))
    sites = settings.fault_model.select(subject.sites[settings.fault_pass])
    if not missing:
        log.info("%s: all %d runs are executed already", settings.fault_key, settings.runs)
        return done
    store.write_json(
        folder / store.MANIFEST,
        {"kind": "execution", "schema_version": SCHEMA_VERSION, "identity": identity_},
    )
    execution = Execution(settings, subject, sites)
    images = len(subject.images[settings.population])
    total = sum(stop - start for start, stop in missing)
    begun = beat = time.monotonic()
    finished = 0
    with tqdm(total=total, desc=settings.fault_key, unit="run", disable=None) as bar:
        for block in Blocks(missing):
            plans = [
                settings.fault_model.plan(
                    sites, images, settings.seed, settings.fault_key, start, stop
                )
                for start, stop in block
            ]
            table = execution.run(pa.concat_tables(plans))
            written = 0
            for start, stop in block:
                part = table.slice(written, stop - start)
                done.append(store.write_shard(folder, start, stop, part))
                written += stop - start
            bar.update(written)
            finished += written
            now = time.monotonic()
            if bar.disable and now - beat > HEARTBEAT_SECONDS:
                beat, rate = now, finished / (now - begun)
                log.info(
                    "%s: %d of %d runs, %.0f runs/s, %.0f s left",
                    settings.fault_key, finished, total, rate, (total - finished) / rate,
                )  # fmt: skip
    seconds = time.monotonic() - begun
    log.info(
        "%s: %d runs executed in %.1f s, %.0f runs/s",
        settings.fault_key, total, seconds, total / seconds,
    )  # fmt: skip
    return sorted(done)


def _judge(
    settings: CellSettings,
    subject: Subject,
    folder: Path,
    identity_: dict[str, Any],
    config: dict[str, Any],
    executed: list[store.Shard],
) -> None:
    """Write the cell's rows for executed runs that have none yet, and its manifest."""
    protection = settings.protection
    thresholds = protection.calibrate(
        subject.clean, gradient_vanishes=subject.method.gradient_vanishes
    )
    clean = protection.judge(golden_evidence(subject.evaluation(settings.population)), thresholds)
    names = settings.names
    layers = settings.fault_model.select(subject.sites[settings.fault_pass])
    store.write_json(
        folder / store.MANIFEST,
        {
            "kind": "cell",
            "schema_version": SCHEMA_VERSION,
            "cell": names,
            "runs": max(settings.runs, executed[-1].stop),
            "seed": settings.seed,
            "identity": identity_,
            "config_hash": hashlib.sha256(
                json.dumps(identity_, sort_keys=True).encode()
            ).hexdigest(),
            "config": config,
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
    judged = {(s.start, s.stop) for s in store.shards(folder, records.RESULT)}
    for shard in executed:
        if (shard.start, shard.stop) not in judged:
            rows = judge(
                pq.read_table(shard.path), names, protection, thresholds, subject.ood_threshold
            )
            store.write_shard(folder, shard.start, shard.stop, rows)
    log.info("%s: %d runs in %s", names["cell"], executed[-1].stop, folder)
