"""One cell at work: it owns its folders, manifest and shards, its plan, and when it stops."""

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.campaign.columns import execution_schema, result_schema, stored
from progip.campaign.golden import clean_rows, unperturbed_rows
from progip.campaign.identities import cell_identity, execution_identity
from progip.campaign.judge import evidence_of, golden_evidence, judge
from progip.campaign.manifest import cell_manifest, execution_manifest
from progip.campaign.planning import Planner
from progip.campaign.settings import CellSettings
from progip.campaign.sizing import known_speed
from progip.campaign.stopping_monitor import StoppingMonitor
from progip.campaign.subject import prepare
from progip.campaign.training import learn
from progip.storage import mending, store
from progip.storage.manifests import check_same_identity, write_manifest
from progip.storage.progress import remove_dead
from progip.storage.shard_queue import ShardQueue

log = logging.getLogger(__name__)


class Cell:
    """The rows of one cell on disk, and the executed runs that they are judged from.

    Call ``open`` once, then ``stage`` for each number of runs in ``stages``, then ``close``.

    Args:
        config: the resolved configuration, for the manifest.

    Attributes:
        subject: what the cell attacks.
        planned: runs of the cell; fewer than at first where a rule stopped it.
        judged: (start, stop) of the shards of rows.
    """

    def __init__(self, settings: CellSettings, config: dict[str, Any]) -> None:
        self.settings, self.config = settings, config
        self.folder, self.execution_folder = settings.folder, settings.execution_folder
        self.subject = prepare(settings.subject)
        self.planned = settings.runs
        self.judged: set[tuple[int, int]] = set()
        self._monitor = StoppingMonitor(settings, settings.runs)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the cell's rows depend on."""
        return cell_identity(self.settings, self.subject)

    @cached_property
    def execution_identity(self) -> dict[str, Any]:
        """What the executed runs depend on."""
        return execution_identity(self.settings, self.subject)

    @cached_property
    def planner(self) -> Planner:
        """Draws the cell's faults."""
        sites = self.subject.chosen(self.settings.fault_model, self.settings.fault_pass)
        return Planner(self.settings, self.subject, sites, self.execution_folder)

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Of the protection, from clean calibration images, after it has learnt what it learns."""
        learn(self.settings, self.subject)
        return self.subject.thresholds.of(self.settings.protection)

    @cached_property
    def _evidence(self) -> list[str]:
        golden = self.subject.golden.evaluation(self.settings.population)
        return evidence_of(golden.schema)

    @cached_property
    def _clean_alarm(self) -> np.ndarray | None:
        """Of every image of the population, where runs may be ended early."""
        if self.settings.sampling.roulette == 1:
            return None
        golden = golden_evidence(self.subject.golden.evaluation(self.settings.population))
        return self.settings.protection.judge(golden, self.thresholds).alarm

    def open(self, accepted: Callable[[], None]) -> None:
        """Refuse folders of another configuration, do golden work, and find the cell's size.

        Args:
            accepted: called once it is clear that the folders hold no other configuration.

        Raises:
            ProgipError: for every mistake of the user; nothing written before is touched.
        """
        settings = self.settings
        check_same_identity(self.folder, self.identity)
        check_same_identity(self.execution_folder, self.execution_identity)
        accepted()
        settings.fault_model.select(self.subject.tested.modules(settings.fault_model))
        clean = self.execution_folder / store.CLEAN
        if not clean.exists() or not store.named_shards(self.execution_folder):
            golden = self.subject.golden
            kept = {clean: clean_rows(golden)}
            if (scores := unperturbed_rows(golden)) is not None:
                kept[clean.with_name(store.UNPERTURBED)] = scores
            with store.locked(clean.parent):  # else a process that tidies up may remove the draft
                for path, rows in kept.items():
                    store.write_table(path, rows)
        self.subject.watched(settings.protection)  # refuses what would check nothing
        faults = self.planner.space.size
        self.planned = settings.sizing.size(self.planner.runs, faults, self.planner.round)
        speed = known_speed(settings.execution_key)
        if speed and self.subject.ready:
            speed = speed._replace(start=0.0)
        done = sum(s.stop - s.start for s in store.named_shards(self.execution_folder))
        announcement = settings.sizing.announcement(
            self.planned, faults, speed, self.planner.round, done
        )
        log.info("%s: %s", settings.execution_key, announcement)
        self._monitor = StoppingMonitor(settings, self.planned)

    @property
    def stages(self) -> list[int]:
        """Numbers of runs to reach one after the other: the plan's pilot, each look, the end.

        What comes after a pilot is planned from its rows.
        """
        firsts = (self.planner.pilot_runs, self.planner.whole_runs)
        return sorted({*(min(n, self.planned) for n in firsts), *self._monitor.looks} - {0})

    def stage(self, runs: int) -> ShardQueue:
        """What is missing of runs 0..runs-1; rows that have no executed shard are set aside.

        Raises:
            OtherConfiguration: a whole shard has other columns.
        """
        schema = execution_schema(self.settings)
        work = ShardQueue(self.execution_folder, schema, runs, self.settings.shard_size)
        with store.locked(self.execution_folder), store.locked(self.folder):
            mending.remove_leftovers(self.folder, work.held())
            remove_dead(self.folder)
            rows = mending.mended_shards(self.folder, result_schema(self.settings))
            # looked up after the rows: another process adds an execution first, its rows second
            found = store.named_shards(self.execution_folder)
            executed = {(shard.start, shard.stop) for shard in found}
            for shard in rows:
                if (shard.start, shard.stop) not in executed:
                    mending.set_aside(shard.path, "its execution is not there")
        self.judged = {(shard.start, shard.stop) for shard in rows} & executed
        planned = max([self.planned, *(shard.stop for shard in work.done)])
        wanted = {shard for shard in executed if self._wanted(shard[0], runs)}
        if not work.complete:
            self.write_manifest(planned)
            write_manifest(self.execution_folder, execution_manifest(self.execution_identity))
        elif not self.judged >= wanted:
            self.write_manifest(planned)
        return work

    def judge(self, start: int, stop: int, observed: pa.Table) -> pa.Table:
        """Write and return the rows of one executed shard."""
        settings, ood = self.settings, self.subject.thresholds.ood
        rows = judge(
            observed,
            settings.names,
            settings.outcome,
            settings.protection,
            self.thresholds,
            ood,
            self._evidence,
            result_schema(settings),
            self._clean_alarm,
        )
        store.write_shard(self.folder, start, stop, stored(rows))
        self.judged.add((start, stop))
        return rows

    def judge_all(self, work: ShardQueue) -> None:
        """Judge every executed shard that has no rows yet."""
        with store.locked(self.folder):
            self.judged |= {(s.start, s.stop) for s in store.named_shards(self.folder)}
            for shard in work.done:
                missing = (shard.start, shard.stop) not in self.judged
                if missing and self._wanted(shard.start, work.runs):
                    self.judge(shard.start, shard.stop, pq.read_table(shard.path))

    def enough(self, runs: int) -> bool:
        """Whether the stopping rule, looking at runs 0..runs-1, ends the cell here."""
        if runs not in self._monitor.looks or not self._monitor.enough(runs):
            return False
        self.planned = runs
        return True

    def close(self) -> None:
        """Record in the manifest how many runs there are to be, and the last look."""
        last = max([self.planned, *(stop for _, stop in self.judged)])
        held = store.read_json(self.folder / store.MANIFEST) or {"runs": 0}
        if int(held["runs"]) != last:  # another process planned fewer, or a rule stopped the cell
            self.write_manifest(last)
        self._monitor.record()

    def write_manifest(self, planned: int) -> None:
        """Write ``manifest.json``: what the rows are, and what they are made with."""
        content = cell_manifest(
            self.settings,
            self.subject,
            self.planner,
            identity=self.identity,
            thresholds=self.thresholds,
            config=self.config,
            planned=planned,
        )
        measured = self.settings.protection.measures
        if measured:  # of the clean evaluation images, too
            golden = self.subject.golden.evaluation(self.settings.population)
            values = self.settings.protection.measured(golden_evidence(golden))
            schema = pa.schema([records.IMAGE.field("sample_index"), *measured])
            found = {"sample_index": golden["sample_index"], **values}
            with store.locked(self.folder):
                store.write_table(self.folder / store.CLEAN, records.table(found, schema))
        write_manifest(self.folder, content)

    def _wanted(self, start: int, runs: int) -> bool:
        """Whether a shard belongs to this cell: with a stopping rule, none beyond the look."""
        return self.settings.stopping.quantity is None or start < runs
