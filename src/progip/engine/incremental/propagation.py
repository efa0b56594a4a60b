"""One walk over the graph for many runs: rows join at their fault, leave when equal to golden."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.graph import Layout
from progip.engine.incremental.lanes import DirtyRows, Lanes, Pack, differs, gather, put, repack
from progip.engine.incremental.schedule import Schedule, Step
from progip.number_formats.base import NumberFormat
from progip.number_formats.codes import registers


@dataclass
class Fault:
    """The faults of one site: runs, position of the neuron in a row, bits to flip in its code."""

    runs: np.ndarray
    where: tuple[np.ndarray, ...]
    masks: np.ndarray
    format: NumberFormat


def golden_values(schedule: Schedule, images: Tensor) -> dict[int, Any]:
    """Fault-free values, of one batch, of the nodes that a propagation reads."""
    values: dict[int, Any] = {0: images}
    with torch.no_grad():
        for step, release in zip(schedule.golden_steps, schedule.golden_release, strict=True):
            values[step.node] = step.function([values[i] for i in step.inputs])
            for node in release:
                del values[node]
    return values


class Propagation:
    """The runs of a few images, all of one pass.

    Args:
        golden: what ``golden_values`` returned.
        rows: for each run, the row of its image in the golden batch.
        faults: for each site (node number), its faults.
    """

    def __init__(
        self,
        schedule: Schedule,
        golden: dict[int, Any],
        rows: np.ndarray,
        faults: dict[int, Fault],
    ) -> None:
        self.schedule, self.golden, self.rows, self.faults = schedule, golden, rows, faults
        self.batch = schedule.traced.batch
        self.device = schedule.traced.device
        self.before = np.zeros(len(rows), dtype=np.float32)
        self.after = np.zeros(len(rows), dtype=np.float32)
        self.fired = np.zeros(len(rows), dtype=np.int64)
        self._states: dict[int, DirtyRows] = {}
        self._results: dict[int, Tensor] = {}

    def run(self) -> list[Tensor]:
        """The observed outputs, one row per run."""
        index = torch.from_numpy(self.rows).to(self.device)
        constant = self.schedule.constant
        wanted = {node for node in self.schedule.outputs if node not in constant}
        for node, value in constant.items():
            self._results[node] = value[:1].expand(len(self.rows), *value.shape[1:])
        for node in wanted:
            layout = self.schedule.layouts[node]
            self._results[node] = layout.rows(self.golden[node])[index]
        with torch.no_grad():
            for step, release in zip(self.schedule.steps, self.schedule.release, strict=True):
                self._step(step)
                if step.node in wanted:
                    self._observe(step.node)
                for node in release:
                    self._states.pop(node, None)
        return [self._results[node] for node in self.schedule.outputs]

    def _step(self, step: Step) -> None:
        if step.site:
            self._inject(step)
            return
        dirty = [i for i in step.inputs if i in self._states]
        if not dirty:
            return
        if len(step.inputs) == 1:
            function = step.function
            packs = [
                Pack(c.lanes, function([c.value]), c.alive, c.valid)
                for c in self._states[dirty[0]].packs
            ]
        else:
            packs = self._join(step, dirty)
        if step.compare and step.worthwhile:
            packs = self._compare(step, packs)
        if packs:
            state = DirtyRows(packs)
            if step.compare and len(packs) > 1 and step.layout is not None:
                state = repack(state, step.layout, self.batch)
            self._states[step.node] = state

    def _observe(self, node: int) -> None:
        if node not in self._states:
            return
        layout = self.schedule.layouts[node]
        for pack in self._states[node].packs:
            lanes = torch.from_numpy(pack.alive.nonzero()[0]).to(self.device)
            runs = torch.from_numpy(pack.lanes.runs[pack.alive]).to(self.device)
            self._results[node][runs] = layout.rows(pack.value)[lanes]

    def _compare(self, step: Step, packs: list[Pack]) -> list[Pack]:
        """Keep the rows that differ from golden."""
        layout = self.schedule.layouts[step.node]
        golden = self.golden[step.node]
        result = []
        for pack in packs:
            lanes = pack.alive.nonzero()[0]
            rows = self.rows[pack.lanes.runs[lanes]]
            changed = differs(layout, pack.value, lanes.tolist(), golden, rows.tolist())
            step.seen += len(changed)
            step.left += len(changed) - sum(changed)
            if all(changed):
                result.append(pack)
            elif any(changed):
                alive = np.zeros(self.batch, dtype=bool)
                alive[lanes[changed]] = True
                result.append(Pack(pack.lanes, pack.value, alive, pack.valid))
        return result

    def _golden_rows(self, node: int, runs: np.ndarray) -> Tensor:
        """A batch of golden rows of the given runs, and whatever row in unused lanes."""
        rows = np.zeros(self.batch, dtype=np.int64)
        rows[: len(runs)] = self.rows[runs]
        index = torch.from_numpy(rows).to(self.device)
        return gather(self.schedule.layouts[node], self.golden[node], index)

    def _inject(self, step: Step) -> None:
        fault = self.faults.get(step.node)
        given = self._states.get(step.inputs[0])
        if fault is None:
            if given is not None:
                self._states[step.node] = given
            return
        layout = self.schedule.layouts[step.node]
        packs = list(given.packs) if given is not None else []
        placed = 0
        for i, pack in enumerate(packs):
            lanes = pack.lanes
            space = min(self.batch - lanes.count, len(fault.runs) - placed)
            if space <= 0:
                continue
            runs = fault.runs[placed : placed + space]
            lanes.runs[lanes.count : lanes.count + space] = runs
            lanes.count += space
            value = pack.value if step.writable else pack.value.clone()
            alive = pack.alive.copy()
            alive[lanes.count - space : lanes.count] = True
            valid = pack.valid.copy()
            valid[lanes.count - space : lanes.count] = True
            packs[i] = Pack(lanes, value, alive, valid)
            added = np.arange(lanes.count - space, lanes.count)
            self._copy_golden(layout, step.node, packs[i], added)
            self._flip(layout, value, added, fault, placed)
            placed += space
        for start in range(placed, len(fault.runs), self.batch):
            runs = fault.runs[start : start + self.batch]
            value = self._golden_rows(step.node, runs)
            self._flip(layout, value, np.arange(len(runs)), fault, start)
            alive = np.zeros(self.batch, dtype=bool)
            alive[: len(runs)] = True
            packs.append(Pack(Lanes(self.batch, runs), value, alive, alive))
        self._states[step.node] = DirtyRows(packs)

    def _copy_golden(self, layout: Layout, node: int, pack: Pack, lanes: np.ndarray) -> None:
        rows = self.rows[pack.lanes.runs[lanes]]
        put(layout, pack.value, lanes, self.golden[node], rows)

    def _flip(
        self, layout: Layout, value: Tensor, lanes: np.ndarray, fault: Fault, start: int
    ) -> None:
        part = slice(start, start + len(lanes))
        values, code = layout.rows(value), fault.format
        index = tuple(
            torch.from_numpy(i).to(self.device) for i in (lanes, *(w[part] for w in fault.where))
        )
        before = values[index]
        metadata = None
        if code.metadata_fields:
            own = values[torch.from_numpy(lanes).to(self.device)]
            shape = layout.axis.row_shape(layout.shape)
            position = np.ravel_multi_index(tuple(w[part] for w in fault.where), shape)
            metadata = registers(code, own, np.arange(len(lanes)), position)
        masks = torch.from_numpy(fault.masks[part]).to(self.device)
        after = code.decode(code.encode(before, metadata) ^ masks, metadata)
        values[index] = after
        runs = fault.runs[part]
        self.before[runs], self.after[runs] = before.cpu().numpy(), after.cpu().numpy()
        self.fired[runs] += 1

    def _join(self, step: Step, dirty: list[int]) -> list[Pack]:
        """Line up the rows of several inputs; what an input has not dirtied comes from golden."""
        states = [self._states[i] for i in dirty]
        result = []
        for lanes, alive in self._line_up(states):
            values = []
            valid = np.arange(self.batch) < lanes.count
            for node in step.inputs:
                state = self._states.get(node)
                if state is None:
                    values.append(self._golden_rows(node, lanes.runs[: lanes.count]))
                else:
                    values.append(self._aligned(node, state, lanes, alive, valid))
            result.append(Pack(lanes, step.function(values), alive, valid | alive))
        return result

    def _line_up(self, states: list[DirtyRows]) -> list[tuple[Lanes, np.ndarray]]:
        """Every dirty run in exactly one lane, keeping the lanes that inputs have already."""
        union: dict[Lanes, np.ndarray] = {}
        for state in states:
            for pack in state.packs:
                seen = union.get(pack.lanes)
                union[pack.lanes] = pack.alive if seen is None else seen | pack.alive
        taken = np.zeros(len(self.rows), dtype=bool)
        result: list[tuple[Lanes, np.ndarray]] = []
        left: list[np.ndarray] = []
        for lanes, alive in sorted(union.items(), key=lambda item: -int(item[1].sum())):
            runs = lanes.runs[alive]
            repeated = taken[runs]
            if not repeated.any():
                result.append((lanes, alive))
            else:
                runs = runs[~repeated]
                if 2 * len(runs) < self.batch:
                    left.append(runs)
                    taken[runs] = True
                    continue
                fewer = alive.copy()
                fewer[alive.nonzero()[0][repeated]] = False
                result.append((lanes, fewer))
            taken[runs] = True
        rest = np.concatenate(left) if left else np.zeros(0, dtype=np.int64)
        for start in range(0, len(rest), self.batch):
            part = rest[start : start + self.batch]
            alive = np.zeros(self.batch, dtype=bool)
            alive[: len(part)] = True
            result.append((Lanes(self.batch, part), alive))
        return result

    def _aligned(
        self, node: int, state: DirtyRows, lanes: Lanes, alive: np.ndarray, valid: np.ndarray
    ) -> Tensor:
        """The values of an input, right in the lanes that are alive.

        Clears ``valid`` where another lane may not hold what its run has here.
        """
        layout = self.schedule.layouts[node]
        cell_of, lane_of = state.locate(len(self.rows))
        own = next((i for i, c in enumerate(state.packs) if c.lanes is lanes), -1)
        wanted = alive.nonzero()[0]
        runs = lanes.runs[wanted]
        source = cell_of[runs]
        everywhere = cell_of[lanes.runs[: lanes.count]]
        valid[: lanes.count] &= (everywhere < 0) | (everywhere == own)
        if own >= 0:
            pack = state.packs[own]
            valid &= pack.valid
            stale = (source != own) & ((source >= 0) | ~pack.valid[wanted])
            if not stale.any():
                return pack.value
            if not _writable(pack.value):
                pack.value = pack.value.contiguous()
            wanted, runs, source = wanted[stale], runs[stale], source[stale]
            clean = wanted[source < 0]
            if len(clean):
                self._copy_golden(layout, node, pack, clean)
            value = pack.value
        else:
            value = self._golden_rows(node, lanes.runs[: lanes.count])
        for i in np.unique(source[source >= 0]):
            chosen = source == i
            put(
                layout,
                value,
                wanted[chosen],
                state.packs[i].value,
                lane_of[runs[chosen]].astype(np.int64),
            )
        return value


def _writable(value: Tensor) -> bool:
    return all(s != 0 for s, n in zip(value.stride(), value.shape, strict=True) if n > 1)
