"""A block of claimed shards under way: what is executed of it, and what is missing."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from progip.storage.partial_runs import read_partial, write_partial

log = logging.getLogger(__name__)


class Block:
    """The runs of some claimed shards.

    What an earlier process had executed of them is taken up where its faults are those planned now.

    Args:
        folder: of the executed runs.
        shards: (start, stop) of each.
        plan: of their runs, in order.
        schema: of executed runs.

    Attributes:
        missing: the plan of the runs that are not executed yet.
        kept: runs that an earlier process had executed.
    """

    def __init__(
        self, folder: Path, shards: list[tuple[int, int]], plan: pa.Table, schema: pa.Schema
    ) -> None:
        self._folder, self._shards, self._plan = folder, list(shards), plan
        self._rows = read_partial(folder, shards[0][0], shards[-1][1], schema)
        self._rows = self._rows.filter(np.isin(self._numbers(), plan["run_id"].to_numpy()))
        if not self._as_planned():
            log.warning("%s: kept runs have other faults than are planned; redone", folder)
            self._rows = schema.empty_table()
        self.kept = len(self._rows)
        self.missing = self._left()

    def add(self, rows: pa.Table) -> None:
        """Take executed runs, in any order."""
        self._rows = pa.concat_tables([self._rows, rows])
        self._rows = self._rows.take(pa.array(np.argsort(self._numbers(), kind="stable")))
        self.missing = self._left()

    def whole(self) -> Iterator[tuple[int, int, pa.Table]]:
        """Every shard that has become whole, with its rows; each once."""
        for start, stop in list(self._shards):
            inside = (self._numbers() >= start) & (self._numbers() < stop)
            if inside.sum() == stop - start:
                yield start, stop, self._rows.filter(inside)
                self._rows = self._rows.filter(~inside)
                self._shards.remove((start, stop))

    def keep(self, rows: pa.Table) -> None:
        """Write those of these executed runs that are in no whole shard."""
        rows = rows.filter(np.isin(rows["run_id"].to_numpy(), self._numbers()))
        if len(rows):
            write_partial(self._folder, rows)

    def _numbers(self) -> np.ndarray:
        numbers: np.ndarray = self._rows["run_id"].to_numpy()
        return numbers

    def _left(self) -> pa.Table:
        runs = self._plan["run_id"].to_numpy()
        inside = np.zeros(len(runs), dtype=bool)
        for start, stop in self._shards:
            inside |= (runs >= start) & (runs < stop)
        return self._plan.filter(inside & ~np.isin(runs, self._numbers()))

    def _as_planned(self) -> bool:
        runs = self._plan["run_id"].to_numpy()
        expected = self._plan.filter(np.isin(runs, self._numbers()))
        held = self._rows.select(self._plan.column_names)
        return bool(held.equals(expected.cast(held.schema)))
