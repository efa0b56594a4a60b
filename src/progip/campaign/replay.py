"""Re-executes one stored row from its own columns, by the reference executor."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.campaign import store
from progip.campaign.execution import observed_table
from progip.campaign.judge import judge
from progip.campaign.settings import CellSettings
from progip.campaign.subject import prepare
from progip.engine.reference import ReferenceExecutor
from progip.errors import ProgipError


@dataclass(frozen=True)
class Replay:
    """A stored row and what its replay gave, both with the columns of ``records.RESULT``."""

    stored: pa.Table
    replayed: pa.Table

    @property
    def differences(self) -> list[str]:
        """The columns that differ; empty for a row that replays exactly (NaN equals NaN)."""
        return [
            name
            for name in records.RESULT.names
            if repr(self.stored[name].to_pylist()) != repr(self.replayed[name].to_pylist())
        ]


def stored_row(folder: Path, run_id: int) -> pa.Table:
    """One row of a cell's folder.

    Raises:
        ProgipError: no shard of this folder holds the run.
    """
    found = store.shards(folder, records.RESULT)
    for shard in found:
        if shard.start <= run_id < shard.stop:
            return pq.read_table(shard.path).slice(run_id - shard.start, 1)
    held = ", ".join(f"{s.start}..{s.stop - 1}" for s in found) or "none"
    raise ProgipError(f"{folder}: there is no run {run_id}; runs here: {held}")


def replay(settings: CellSettings, run_id: int) -> Replay:
    """Execute run ``run_id`` of a cell again, from the columns of its stored row alone.

    Args:
        settings: of the cell, as its manifest records them.

    Raises:
        ProgipError: the run is not there, or weights, data or options are no longer those the
            row was made with.
    """
    stored = stored_row(settings.folder, run_id)
    subject = prepare(settings.subject)
    manifest = store.read_json(settings.folder / store.MANIFEST)
    if manifest is None:
        raise ProgipError(
            f"{settings.folder}: there is no {store.MANIFEST}; nothing to replay from"
        )
    store.check_same_identity(settings.folder, {**manifest["identity"], **subject.identity})
    executor = ReferenceExecutor(
        subject.pipeline,
        settings.fault_model.select(subject.sites[settings.fault_pass]),
        settings.fault_pass,
        subject.images[settings.population],
        settings.subject.batch_size,
    )
    plan = stored.select(records.PLAN.names)
    observed = observed_table(plan, subject.evaluation(settings.population), executor.run(plan))
    thresholds = manifest["thresholds"]
    replayed = judge(observed, settings.names, settings.protection, thresholds, thresholds["ood"])
    return Replay(stored, replayed)
