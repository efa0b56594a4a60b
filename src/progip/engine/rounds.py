"""Executes faults that stay in memory: whole rounds of images under one fault map."""

from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa
from torch import Tensor

from progip.engine.pieces import Draw, Piece
from progip.engine.pipeline import Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.fault_models.base import MAP, Hits, Site, digests, named_hits
from progip.fault_models.parameters import Memory
from progip.records import EVERY_PASS


class RoundExecutor(ReferenceExecutor):
    """Writes a fault map into the parameters, runs its images whole, and takes it back.

    The reference for faults in memory; arguments as of ``ReferenceExecutor``, sites being
    parameters. ``draw`` is given the maps: the first run of each, numbered by map.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sites: list[Site],
        images: Tensor,
        batch_size: int,
        draw: Draw | None = None,
        labels: np.ndarray | None = None,
        *,
        named: bool = True,
    ) -> None:
        super().__init__(pipeline, [], EVERY_PASS, images, batch_size, draw, labels)
        self.sites = sites
        self.memory = Memory(pipeline.network, sites)
        self.named = named

    def on(self, pipeline: Pipeline, draw: Draw) -> "RoundExecutor":
        """As in the base class."""
        args = (pipeline, self.sites, self.images, self.batch_size, draw)
        return RoundExecutor(*args, named=self.named)

    def hits(self, plan: pa.Table) -> Hits:
        """The hits of each map of a plan, ``row`` being its position among them."""
        maps, _ = maps_of(plan)
        return named_hits(self.sites, maps) if self._draw is None else self._draw(maps)

    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN`` and ``MAP``) map by map.

        Columns are as in the base class: values before and after are NaN, and the columns of
        ``fault_models.base.MANY`` there, where a map has any number of hits.
        """
        hits = self.hits(plan)
        maps, ends = maps_of(plan)
        samples = plan["sample_index"].to_numpy()
        for part, (start, stop) in zip(split(hits, len(maps)), ends, strict=True):
            with self.memory.faulty(part) as written:
                columns = self._round(samples[start:stop])
            size = stop - start
            if self.named:
                columns["value_before"] = np.repeat(written.before, size)
                columns["value_after"] = np.repeat(written.after, size)
            else:
                nothing = np.full(size, np.nan, dtype=np.float32)
                columns["value_before"] = columns["value_after"] = nothing
                columns["hits"] = np.full(size, len(part.row), dtype=np.int32)
                columns["fault_digest"] = np.repeat(digests(part, 1), size)
            yield np.arange(start, stop), columns
        self.memory.check()

    def _round(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            parts.append(self.observed(self.pipeline(self._padded(batch)), batch))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def maps_of(plan: pa.Table) -> tuple[pa.Table, list[tuple[int, int]]]:
    """The maps of a plan, one row each, ``run_id`` being their number, and where their runs are."""
    number = plan[MAP[0].name].to_numpy()
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    ends = [*starts[1:].tolist(), len(number)]
    maps = plan.take(pa.array(starts))
    place = maps.schema.get_field_index("run_id")
    numbers = pa.array(number[starts].astype(np.int64))
    return maps.set_column(place, "run_id", numbers), list(zip(starts.tolist(), ends, strict=True))


def split(hits: Hits, maps: int) -> Iterator[Hits]:
    """The hits of each map alone."""
    order = np.argsort(hits.row, kind="stable")
    ends = np.searchsorted(hits.row[order], np.arange(maps + 1))
    for number in range(maps):
        chosen = order[ends[number] : ends[number + 1]]
        clear = None if hits.clear is None else hits.clear[chosen]
        row = np.zeros(len(chosen), dtype=np.int64)
        yield Hits(row, hits.site[chosen], hits.neuron[chosen], hits.mask[chosen], clear)
