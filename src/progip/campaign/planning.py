"""The plan of one cell: the sampling plan applied to its population, with the pilot it may need."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.analysis.kinds import kinds_of
from progip.campaign.judge import runs_of
from progip.campaign.roulette import check_clean, check_roulette
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.engine.roulette import Roulette
from progip.fault_models.base import MAP, Site
from progip.outcomes.base import Context
from progip.sampling.base import CleanValues, FaultSpace, Pilot
from progip.sampling.roulette import limits, spared
from progip.storage import store


class Planner:
    """Draws the faults of one cell.

    Args:
        sites: what the fault model selected in the cell's pass.
        folder: of the executed runs, where the pilot is read from once it is there.

    What needs strata raises ProgipError where the fault model has none, or one has no site.
    """

    def __init__(
        self, settings: CellSettings, subject: Subject, sites: list[Site], folder: Path
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._threshold = subject.thresholds.ood
        golden = subject.golden.evaluation(settings.population)
        self._context = Context(settings.population, self._threshold)
        self._kinds = kinds_of(settings.outcome.declared)
        rows = {name: records.values(golden[name]) for name in golden.schema.names}
        #: columns of the golden rows of the population
        self.golden = rows
        #: positions of the images that faults are drawn for
        self.images = settings.condition.chosen(rows)
        if settings.sampling.roulette < 1:
            check_roulette(settings)
        clean = {"label": rows["label"]}
        for name in settings.outcome.needs:
            clean |= {name: rows[name], f"golden_{name}": rows[name], f"faulty_{name}": rows[name]}
        flags = settings.outcome.judge(clean, self._context)
        if settings.sampling.roulette < 1:
            check_clean(settings.outcome, flags)
        base = self._kinds.declared.base
        correct = flags[base] if base else np.ones(len(golden), dtype=bool)
        model = settings.fault_model
        #: runs that share a fault map; 1 where every run has faults of its own
        self.round = model.rows_per_map(len(self.images))
        if model.scope == "round":  # which images a map meets is no part of its law
            self.space = FaultSpace(model, sites, np.ones(1, dtype=bool))
        else:
            self.space = FaultSpace(
                model,
                sites,
                correct[self.images],
                np.abs(rows["score"] - self._threshold)[self.images],
                lambda: self._values(
                    subject.clean_values(settings.population, settings.fault_pass, sites)
                ),
            )
        self._pilot: Pilot | None = None
        self._parameters = {site.key: site.parameter for site in sites}

    @property
    def runs(self) -> int:
        """Of the cell: what the fault model, the plan or the configuration says."""
        s = self._settings
        maps = s.fault_model.maps() or s.sampling.size(self.space) or s.sizing.maps
        return s.runs if maps is None else maps * self.round

    @property
    def pilot_runs(self) -> int:
        """Runs of the sampling plan's pilot, which counts maps where runs share them."""
        return self._settings.sampling.pilot_runs * self.round

    @property
    def whole_runs(self) -> int:
        """The first runs, of which later ones are planned or ended."""
        return self._settings.sampling.whole_runs * self.round

    def roulette(self) -> Roulette | None:
        """Which runs are ended early; None where the plan ends none.

        None is before the pilot is complete, and limits of 0 end none of its runs.
        """
        s = self._settings
        if s.sampling.roulette == 1:
            return None
        rows, first = self._first_runs(self.whole_runs), self.whole_runs
        found = (0.0, 0.0)
        if rows is not None:
            judged = s.outcome.judge(runs_of(rows, s.outcome.needs), self._context)
            found = limits(
                self._kinds.failed(judged),
                rows["change_at_fault"].to_numpy(),
                rows["change_at_logits"].to_numpy(),
                rows["weight"].to_numpy(),
                s.sampling.roulette,
            )
        distance = np.abs(self.golden["score"] - self._threshold)[self.images]
        near = frozenset(self.images[spared(distance)].tolist())
        return Roulette(s.sampling.roulette, *found, first, s.seed, s.fault_key, near)

    def _first_runs(self, runs: int) -> pa.Table | None:
        """The first executed runs; None where they are not all there."""
        paths = [shard.path for shard in store.named_shards(self._folder) if shard.start < runs]
        if not paths:
            return None
        rows = pa.concat_tables(pq.read_table(path) for path in paths)
        rows = rows.filter(np.asarray(rows["run_id"]) < runs)
        return rows if len(rows) == runs else None

    def plan(self, start: int, stop: int) -> pa.Table:
        """``records.PLAN`` of runs start..stop-1; the pilot before them must be executed.

        Where runs share a fault map, the columns of ``fault_models.base.MAP`` are there, too.
        """
        s = self._settings
        pilot = self.pilot() if stop > self.pilot_runs else None
        if s.fault_model.scope == "round":
            return self._rounds(start, stop, pilot)
        plan = s.sampling.plan(self.space, s.seed, s.fault_key, start, stop, pilot)
        images = self.images[plan["sample_index"].to_numpy()].astype(np.int32)
        position = plan.schema.get_field_index("sample_index")
        return plan.set_column(position, plan.schema.field(position), pa.array(images))

    def _rounds(self, start: int, stop: int, pilot: Pilot | None) -> pa.Table:
        """Runs of whole and begun rounds: the maps, and the images that each meets in turn."""
        s, runs = self._settings, np.arange(start, stop, dtype=np.int64)
        number = runs // self.round
        first, last = int(number[0]), int(number[-1])
        maps = s.sampling.plan(self.space, s.seed, s.fault_key, first, last + 1, pilot)
        plan = maps.take(pa.array(number - first))
        images = self.images[runs % len(self.images)].astype(np.int32)
        for name, values in (("run_id", runs), ("sample_index", images)):
            place = plan.schema.get_field_index(name)
            plan = plan.set_column(place, plan.schema.field(name), pa.array(values))
        keys = zip(plan["layer"].to_pylist(), plan["call"].to_pylist(), strict=True)
        names = [self._parameters.get(key, "") for key in keys]
        for field, column in zip(MAP, (pa.array(number.astype(np.int32)), names), strict=True):
            plan = plan.append_column(field, pa.array(column, field.type))
        return plan

    def _values(self, values: CleanValues) -> CleanValues:
        every = len(self.images) == values.counts.shape[2]
        return values if every else ChosenValues(values, self.images)

    def pilot(self) -> Pilot | None:
        """What the pilot showed; None where the plan has none or it is not complete."""
        runs = self.pilot_runs
        if not runs or self._pilot is not None:
            return self._pilot
        rows = self._first_runs(runs)
        if rows is None:
            return None
        outcome = self._settings.outcome
        found = outcome.judge(runs_of(rows, outcome.needs), self._context)
        failed = self._kinds.failed(found)
        stratum = rows["stratum"].to_numpy()
        strata = len(self._settings.sampling.shares(self.space))
        counts = (np.ones(len(rows)), failed, failed & self._looks_clean(rows))
        sums = (np.bincount(stratum, c, minlength=strata) for c in counts)
        # of maps, with the parts of their rounds that fail, where runs share them
        self._pilot = Pilot(*(np.rint(total / self.round).astype(np.int64) for total in sums))
        return self._pilot

    def _looks_clean(self, rows: pa.Table) -> np.ndarray:
        """Runs in which gradient and score, or all activations, are as in clean runs."""
        column = {name: rows[name].to_numpy() for name in _CLUES}
        calm = np.ones(len(rows), dtype=bool)
        for name in ("grad_max", "score"):
            clean, value = column[f"golden_{name}"], column[f"faulty_{name}"]
            calm &= (value >= clean.min()) & (value <= clean.max())
        inside: np.ndarray = column["range_excess_first"] <= 0
        return calm | (inside & (column["range_excess_second"] <= 0))

    def describe(self) -> dict[str, Any]:
        """For the cell's manifest."""
        described = self._settings.sampling.describe(self.space, self.pilot())
        if "pilot_runs" in described:  # the plan counts maps where runs share them
            described["pilot_runs"] *= self.round
        roulette = self.roulette()
        if roulette is not None:
            described["roulette"] = {
                "probability": roulette.probability,
                "whole_runs": roulette.first,
                "at_fault": roulette.at_fault,
                "at_logits": roulette.at_logits,
            }
        return described


class ChosenValues:
    """The fault-free values of some images, numbered anew from 0.

    Args:
        values: of all evaluation images.
        images: positions of the chosen ones.
    """

    def __init__(self, values: CleanValues, images: np.ndarray) -> None:
        self._values, self._images = values, images
        self.scale = values.scale
        self.counts = values.counts[:, :, images]

    def neurons(
        self, image: np.ndarray, site: np.ndarray, code: np.ndarray, rank: np.ndarray
    ) -> np.ndarray:
        """As ``CleanValues.neurons``."""
        return self._values.neurons(self._images[image], site, code, rank)


_CLUES = (
    "golden_grad_max", "faulty_grad_max", "golden_score", "faulty_score",
    "range_excess_first", "range_excess_second",
)  # fmt: skip
