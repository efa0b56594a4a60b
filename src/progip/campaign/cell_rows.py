"""A cell's own folder: its manifest, and its rows judged from the runs that were executed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.campaign.judge import golden_evidence, judge
from progip.campaign.planning import Planner
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.described import Described, account
from progip.storage import mending, provenance, store
from progip.storage.claims import SharedWork
from progip.storage.manifests import write_manifest
from progip.storage.progress import remove_dead


class CellRows:
    """Judges executed shards under the cell's protection and writes shards of result rows.

    Rows that do not belong to an executed shard, start to stop, are set aside and judged again.

    Args:
        planner: of the cell, for the manifest.
        work: on the execution whose runs are judged.

    Raises:
        OtherConfiguration: a whole shard has other columns.
    """

    def __init__(
        self,
        settings: CellSettings,
        subject: Subject,
        planner: Planner,
        folder: Path,
        identity: dict[str, Any],
        work: SharedWork,
    ) -> None:
        self.settings, self.subject, self.folder = settings, subject, folder
        self._identity, self._planner, self._runs = identity, planner, work.runs
        with store.locked(work.folder), store.locked(folder):
            mending.remove_leftovers(folder, work.held())
            remove_dead(folder)
            judged = mending.mended_shards(folder, records.result_schema(*settings.more_columns))
            # looked up after the rows: another process adds an execution first, its rows second
            executed = {(s.start, s.stop) for s in store.named_shards(work.folder)}
            for shard in judged:
                if (shard.start, shard.stop) not in executed:
                    mending.set_aside(shard.path, "its execution is not there")
        self.judged = {(s.start, s.stop) for s in judged} & executed
        self.complete = self.judged >= {shard for shard in executed if self._wanted(shard[0])}

    def _wanted(self, start: int) -> bool:
        """Whether a shard belongs to this cell: with a stopping rule, none beyond the look."""
        return self.settings.stopping.quantity is None or start < self._runs

    @property
    def planned(self) -> int:
        """Runs that the manifest plans; 0 without one."""
        return int((store.read_json(self.folder / store.MANIFEST) or {"runs": 0})["runs"])

    @property
    def thresholds(self) -> dict[str, float]:
        """Of the protection, from clean calibration images."""
        if not hasattr(self, "_thresholds"):
            self._thresholds = dict(
                self.settings.protection.calibrate(
                    self.subject.clean, gradient_vanishes=self.subject.method.gradient_vanishes
                )
            )
        return self._thresholds

    def judge(self, start: int, stop: int, observed: pa.Table) -> pa.Table:
        """Write and return the rows of one executed shard."""
        settings, subject = self.settings, self.subject
        rows = judge(
            observed, settings.names, settings.protection, self.thresholds, subject.ood_threshold
        )
        store.write_shard(self.folder, start, stop, rows)
        self.judged.add((start, stop))
        return rows

    def judge_all(self, executed: Iterable[store.Shard]) -> None:
        """Judge every executed shard that has no rows yet."""
        with store.locked(self.folder):
            self.judged |= {(s.start, s.stop) for s in store.named_shards(self.folder)}
            for shard in executed:
                if (shard.start, shard.stop) not in self.judged and self._wanted(shard.start):
                    self.judge(shard.start, shard.stop, pq.read_table(shard.path))

    def write_manifest(self, config: dict[str, Any], planned: int) -> None:
        """Write ``manifest.json``: what the rows are, and what they are made with."""
        settings, subject, identity = self.settings, self.subject, self._identity
        evaluation = golden_evidence(subject.evaluation(settings.population))
        clean = settings.protection.judge(evaluation, self.thresholds)
        layers = self._planner.population.sites
        made = {
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "hardware": provenance.hardware(settings.subject.torch_device()),
        }
        write_manifest(
            self.folder,
            {
                "kind": "cell",
                "schema_version": records.SCHEMA_VERSION,
                "cell": settings.names,
                "runs": planned,
                "seed": settings.seed,
                "identity": identity,
                "config_hash": hashlib.sha256(
                    json.dumps(identity, sort_keys=True).encode()
                ).hexdigest(),
                "config": config,
                "sampling": self._planner.describe(),
                "thresholds": {"ood": subject.ood_threshold, **self.thresholds},
                "clean": {"images": len(clean.alarm), "alarms": int(clean.alarm.sum())},
                "base_metrics": subject.base_metrics,
                "weights_sha256": identity["weights_sha256"],
                "data": identity["data"],
                **made,
                "made_by": _contributors(self.folder, made),
                "methods": account(_parts(settings)),
                "watched": subject.watched(settings.protection),
                "coverage": subject.survey.coverage(settings.fault_pass, layers),
                "layers": [
                    {"layer": s.layer, "call": s.call, "type": s.kind, "neurons": s.neurons,
                     "macs": s.macs}
                    for s in layers
                ],
            },
        )  # fmt: skip


def _parts(settings: CellSettings) -> dict[str, Described]:
    """The components that say what they do."""
    return {
        "fault_model": settings.fault_model,
        "ood_method": settings.subject.ood_method,
        "protection": settings.protection,
        "sampling": settings.sampling,
        "stopping": settings.stopping,
    }


def _contributors(folder: Path, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Every state of code and machine that added rows; a resumed cell may have several."""
    before = (store.read_json(folder / store.MANIFEST) or {}).get("made_by", [])
    return before if made in before else [*before, made]
