"""The plan of one cell: the sampling plan applied to its population, with the pilot it may need."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.analysis.kinds import kinds_of
from progip.campaign.judge import runs_of
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.fault_models.base import Site
from progip.outcomes.base import Context
from progip.sampling.base import CleanValues, FaultSpace, Pilot
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
        clean = {"label": rows["label"]}
        for name in settings.outcome.needs:
            clean |= {name: rows[name], f"golden_{name}": rows[name], f"faulty_{name}": rows[name]}
        flags = settings.outcome.judge(clean, self._context)
        base = self._kinds.declared.base
        correct = flags[base] if base else np.ones(len(golden), dtype=bool)
        self.space = FaultSpace(
            settings.fault_model,
            sites,
            correct[self.images],
            np.abs(rows["score"] - self._threshold)[self.images],
            lambda: self._values(
                subject.clean_values(settings.population, settings.fault_pass, sites)
            ),
        )
        self._pilot: Pilot | None = None

    def plan(self, start: int, stop: int) -> pa.Table:
        """``records.PLAN`` of runs start..stop-1; the pilot before them must be executed."""
        s = self._settings
        pilot = self.pilot() if stop > s.sampling.pilot_runs else None
        plan = s.sampling.plan(self.space, s.seed, s.fault_key, start, stop, pilot)
        images = self.images[plan["sample_index"].to_numpy()].astype(np.int32)
        position = plan.schema.get_field_index("sample_index")
        return plan.set_column(position, plan.schema.field(position), pa.array(images))

    def _values(self, values: CleanValues) -> CleanValues:
        every = len(self.images) == values.counts.shape[2]
        return values if every else ChosenValues(values, self.images)

    def pilot(self) -> Pilot | None:
        """What the pilot showed; None where the plan has none or it is not complete."""
        runs = self._settings.sampling.pilot_runs
        if not runs or self._pilot is not None:
            return self._pilot
        paths = [shard.path for shard in store.named_shards(self._folder) if shard.start < runs]
        if not paths:
            return None
        rows = pa.concat_tables(pq.read_table(path) for path in paths)
        rows = rows.filter(np.asarray(rows["run_id"]) < runs)
        if len(rows) < runs:
            return None
        outcome = self._settings.outcome
        found = outcome.judge(runs_of(rows, outcome.needs), self._context)
        failed = self._kinds.failed(found)
        stratum = rows["stratum"].to_numpy()
        strata = len(self._settings.sampling.shares(self.space))
        counts = (np.ones(len(rows)), failed, failed & self._looks_clean(rows))
        self._pilot = Pilot(
            *(np.bincount(stratum, c, minlength=strata).astype(np.int64) for c in counts)
        )
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
        return self._settings.sampling.describe(self.space, self.pilot())


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
