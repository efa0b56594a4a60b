"""Faults in parameters, incrementally: a fault map changes constants of the graph."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.incremental.executor import DEFAULT_MEMORY, columns_of, fitting_runs
from progip.engine.incremental.golden import Golden
from progip.engine.incremental.graph import NotTraceable, map_refs, refs
from progip.engine.incremental.lanes import DirtyRows, Lanes, Pack, repack
from progip.engine.incremental.propagation import Propagation, golden_values
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.steps import Step
from progip.engine.incremental.tracing import Traced
from progip.engine.pieces import ByPieces, Draw, Piece
from progip.engine.rounds import maps_of, split
from progip.fault_models.base import Hits, Site
from progip.fault_models.parameters import Memory, flat


@dataclass(frozen=True)
class MapFault:
    """One fault map in a propagation: its runs there, and the constants it changes."""

    runs: np.ndarray
    constants: dict[int, Any]


class IncrementalRounds(ByPieces):
    """Executes planned maps like ``RoundExecutor``, with equal results.

    A changed weight leaves all that comes before its layer as it is, so a map starts from the
    golden input of each layer that reads it, for whole batches of images; rows that equal golden
    leave.

    Args:
        traced: the detector, traced once for all cells.
        sites: parameters that the plan may name.
        images: (n, channels, height, width) evaluation images, on the device to run on.
        draw: gives the hits of maps.
        memory: bytes for golden values and for rows under way.
        labels: (n,) of the images, for probes that look at them.

    Raises:
        NotTraceable: a parameter is not in the graph, or something made of it cannot be redone.
    """

    def __init__(
        self,
        traced: Traced,
        sites: list[Site],
        images: Tensor,
        draw: Draw,
        memory: int = DEFAULT_MEMORY,
        labels: np.ndarray | None = None,
    ) -> None:
        self.traced, self.images, self._draw, self._labels = traced, images, draw, labels
        self._memory = Memory(traced.pipeline.network, sites)
        self._nodes = [self._constants(site, i) for i, site in enumerate(sites)]
        self._made = {site: self._made_of(nodes) for site, nodes in enumerate(self._nodes)}
        changing = {n for nodes in (*self._nodes, *self._made.values()) for n in nodes}
        self.schedule = Schedule(traced, set(), changing, late=False)
        self.runs_per_propagation = fitting_runs(self.schedule, memory)

    def _constants(self, site: Site, position: int) -> list[int]:
        """The nodes that hold a parameter as it is."""
        parameter = self._memory.parameters[position]
        found = [
            number
            for number, value in self.traced.constants.items()
            if self.traced.nodes[number].target is None
            and isinstance(value, Tensor)
            and value.data_ptr() == parameter.data_ptr()
            and value.shape == parameter.shape
        ]
        if not found:
            raise NotTraceable(
                f"parameter '{site.parameter}' of layer '{site.layer}' is not in the traced graph"
            )
        return found

    def _made_of(self, nodes: Sequence[int]) -> list[int]:
        """The constants that are computed from some others, in order."""
        known, made = set(nodes), []
        for number, node in enumerate(self.traced.nodes):
            if node.target is None or number not in self.traced.constants:
                continue
            if known.intersection(refs([*node.args, *node.kwargs.values()])):
                if node.inputs:
                    raise NotTraceable("what a parameter makes of any image is the same for all")
                known.add(number)
                made.append(number)
        return made

    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN``, ``MAP``) image by image; columns as the reference."""
        maps, ends = maps_of(plan)
        hits = list(split(self._draw(maps), len(maps)))
        owner = np.repeat(np.arange(len(maps)), [stop - start for start, stop in ends])
        samples = plan["sample_index"].to_numpy().astype(np.int64)
        distinct, position = np.unique(samples, return_inverse=True)
        batch = self.traced.batch
        order = np.lexsort((position, owner, position // batch))
        limits = np.searchsorted(position[order] // batch, np.arange(len(distinct) // batch + 2))
        written = np.array([self._written(part) for part in hits], dtype=np.float32)
        self.golden_seconds = 0.0
        for first, (start, stop) in enumerate(pairwise(limits.tolist())):
            if start == stop:
                continue
            chosen = np.resize(distinct[first * batch : (first + 1) * batch], batch)
            images = self.images[torch.from_numpy(chosen).to(self.images.device)]
            begun = time.monotonic()
            golden = golden_values(self.schedule, images)
            self.golden_seconds += time.monotonic() - begun
            for members in self._pieces(order[start:stop], owner):
                rows = position[members] - first * batch
                columns = self._propagate(plan, members, rows, owner[members], hits, golden)
                columns["value_before"], columns["value_after"] = written[owner[members]].T
                yield members, columns
            golden.forget()  # before the next ones are made
        self._memory.check()

    def _pieces(self, members: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
        """Runs of one golden batch in parts that fit, none of which divides a map."""
        ends = np.flatnonzero(np.diff(owner[members])) + 1
        most = max(1, self.runs_per_propagation // self.traced.batch)
        return np.split(members, ends[most - 1 :: most])

    def _propagate(
        self,
        plan: pa.Table,
        members: np.ndarray,
        rows: np.ndarray,
        owner: np.ndarray,
        hits: list[Hits],
        golden: Golden,
    ) -> dict[str, np.ndarray]:
        faults = [
            MapFault(np.flatnonzero(owner == number), self._changed(hits[number]))
            for number in np.unique(owner).tolist()
        ]
        outputs = _ParameterPropagation(self.schedule, golden, rows, faults).run()
        return columns_of(self.traced, outputs, plan.take(pa.array(members)), self._labels)

    def _changed(self, hits: Hits) -> dict[int, Any]:
        """The constants that a map changes, with their values under it."""
        changed: dict[int, Any] = {}
        for site in np.unique(hits.site).tolist():
            chosen = np.flatnonzero(hits.site == site)
            change = self._memory.change(site, hits, chosen)
            value = self._memory.parameters[site].clone()
            flat(value)[change.places] = change.values
            changed |= dict.fromkeys(self._nodes[site], value)
        constants = self.traced.constants
        for site in np.unique(hits.site).tolist():
            for number in self._made[site]:
                node = self.traced.nodes[number]

                def argument(n: int) -> Any:
                    return changed[n] if n in changed else constants[n]

                assert node.target is not None
                kwargs = {k: map_refs(v, argument) for k, v in node.kwargs.items()}
                with torch.no_grad():
                    changed[number] = node.target(*map_refs(node.args, argument), **kwargs)
        return changed

    def _written(self, hits: Hits) -> tuple[float, float]:
        """What the one value or register of a map stands for without and with its fault."""
        change = self._memory.change(int(hits.site[0]), hits, np.arange(1))
        return float(change.before[0]), float(change.after[0])


class _ParameterPropagation(Propagation):
    """One walk over the graph for the runs of some maps."""

    def __init__(
        self, schedule: Schedule, golden: Golden, rows: np.ndarray, maps: list[MapFault]
    ) -> None:
        super().__init__(schedule, golden, rows, {})
        self.maps = maps

    def _step(self, step: Step) -> None:
        here = [m for m in self.maps if any(n in m.constants for n in step.reads)]
        if not here:
            super()._step(step)
            return
        packs = self._others(step, np.concatenate([m.runs for m in here]))
        for fault in here:
            packs += self._of_map(step, fault)
        if step.layout is not None:  # else a tuple, which no row leaves
            packs = self._compare(step, packs)
        if packs:
            state = DirtyRows(packs)
            if len(packs) > 1 and step.layout is not None:
                state = repack(state, step.layout, self.batch)
            self.states[step.node] = state

    def _others(self, step: Step, taken: np.ndarray) -> list[Pack]:
        """The packs of runs whose fault is elsewhere."""
        saved = {i: self.states[i] for i in step.inputs if i in self.states}
        for node, state in saved.items():
            rest = []
            for pack in state.packs:
                alive = pack.alive & ~np.isin(pack.lanes.runs, taken)
                if alive.any():
                    rest.append(Pack(pack.lanes, pack.value, alive, pack.valid))
            if rest:
                self.states[node] = DirtyRows(rest)
            else:
                del self.states[node]
        super()._step(step)
        self.states |= saved
        made = self.states.pop(step.node, None)
        return [] if made is None else list(made.packs)

    def _of_map(self, step: Step, fault: MapFault) -> list[Pack]:
        """The packs of a map's runs, computed with what it changes."""
        assert step.rebuilt is not None
        function = step.rebuilt(fault.constants)
        packs = []
        for start in range(0, len(fault.runs), self.batch):
            runs = fault.runs[start : start + self.batch]
            lanes, alive = Lanes(self.batch, runs), np.arange(self.batch) < len(runs)
            whole = len(runs) == self.batch and (self.rows[runs] == np.arange(self.batch)).all()
            values = []
            for node in step.inputs:
                state = self.states.get(node)
                if state is not None:
                    values.append(self._aligned(node, state, lanes, alive, alive.copy()))
                elif whole:
                    values.append(self.golden[node])
                else:
                    values.append(self.golden_rows(node, runs))
            packs.append(Pack(lanes, function(values), alive, alive.copy()))
        return packs
