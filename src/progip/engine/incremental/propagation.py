"""One walk over the graph for many runs: rows join at their fault, leave when equal to golden."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.comparing import LateComparisons
from progip.engine.incremental.endings import Endings
from progip.engine.incremental.golden import Golden
from progip.engine.incremental.graph import Layout
from progip.engine.incremental.injection import Fault, Injection
from progip.engine.incremental.lanes import DirtyRows, Lanes, Pack, differs, gather, put, repack
from progip.engine.incremental.looks import Look, Looks
from progip.engine.incremental.room import writable_memory
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.steps import Step
from progip.engine.incremental.transfers import Reads, upload
from progip.engine.incremental.windows import Windows
from progip.engine.roulette import Game


def golden_values(schedule: Schedule, images: Tensor) -> Golden:
    """Fault-free values, of one batch, of the nodes that a propagation reads."""
    values = Golden()
    values[0] = images
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
        game: ends some of the runs whose change is tiny; None: none is ended.
        many: runs may be hit several times.
        reads: counts what is read back from the device.
        looks: values to look at, by node (of ``Schedule.looked``).

    Attributes:
        injection: what became of the faults.
        looked: by node, what was found; filled by ``run``.
    """

    def __init__(
        self,
        schedule: Schedule,
        golden: Golden,
        rows: np.ndarray,
        faults: dict[int, Fault],
        game: Game | None = None,
        many: bool = False,
        reads: Reads | None = None,
        looks: dict[int, Look] | None = None,
    ) -> None:
        self.schedule, self.golden, self.rows = schedule, golden, rows
        self.batch = schedule.traced.batch
        self.device = schedule.traced.device
        self.states: dict[int, DirtyRows] = {}
        self.reads = reads or Reads()
        self._late = LateComparisons(self) if schedule.late else None
        self._results: dict[int, Tensor] = {}
        self._windows = Windows(self)
        self._endings = None if game is None else Endings(self, game)
        self._looks = Looks(self, looks or {})
        self.looked: dict[int, np.ndarray] = {}
        self.injection = Injection(self, self._windows, faults, self._endings, many)

    def run(self) -> list[Tensor]:
        """The observed outputs, one row per run."""
        index = upload(self.rows, self.device)
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
                self._looks.at(step.node)
                if self._endings is not None and step.node == self.schedule.logits:
                    self._endings.at_logits(self._windows.crops)
                if step.node in wanted:
                    self._observe(step.node)
                for node in release:
                    self.states.pop(node, None)
                    self._windows.crops.pop(node, None)
        ended = None if self._endings is None else self._endings.game.ended
        self.looked = self._looks.values(ended)
        if ended is not None:  # of an ended run nothing is known but its golden outcome
            runs = upload(ended.nonzero()[0], self.device)
            for node in wanted:
                rows = self.schedule.layouts[node].rows(self.golden[node])
                self._results[node][runs] = rows[index[runs]]
        return [self._results[node] for node in self.schedule.outputs]

    def _step(self, step: Step) -> None:
        if step.site:
            self.injection.step(step)
            return
        measured = self._windows.step(step)
        dirty = [i for i in step.inputs if i in self.states]
        packs = []
        if len(step.inputs) == 1 and dirty:
            function = step.function
            packs = [
                Pack(c.lanes, function([c.value]), c.alive, c.valid)
                for c in self.states[dirty[0]].packs
            ]
        elif dirty:
            packs = self._join(step, dirty)
        late = self._late if step.compare and step.layout is not None else None
        if late is not None:
            packs = late.step(step, packs)
        elif packs and step.compare and step.worthwhile:
            packs = self._compare(step, packs)
        packs += measured
        if packs:
            state = DirtyRows(packs)
            if step.compare and len(packs) > 1 and step.layout is not None:
                state = repack(state, step.layout, self.batch)
            self.states[step.node] = state
            if late is not None and step.worthwhile:
                late.ask(step, state.packs)

    def whole_runs(self, nodes: Sequence[int]) -> np.ndarray | None:
        """For each run, whether it is dirty in whole rows of one of the nodes."""
        packs = [p for node in nodes if node in self.states for p in self.states[node].packs]
        result = np.zeros(len(self.rows), dtype=bool)
        for pack in packs:
            result[pack.lanes.runs[pack.alive]] = True
        return result if packs else None

    def _observe(self, node: int) -> None:
        if node not in self.states:
            return
        layout = self.schedule.layouts[node]
        for pack in self.states[node].packs:
            alive = pack.alive.nonzero()[0]
            lanes, runs = upload(np.stack([alive, pack.lanes.runs[alive]]), self.device)
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

    def golden_rows(self, node: int, runs: np.ndarray) -> Tensor:
        """A batch of golden rows of the given runs, and whatever row in unused lanes."""
        rows = np.zeros(self.batch, dtype=np.int64)
        rows[: len(runs)] = self.rows[runs]
        index = upload(rows, self.device)
        return gather(self.schedule.layouts[node], self.golden[node], index)

    def _golden_of(self, node: int, lanes: Lanes) -> Tensor:
        """A batch of golden rows, one for each lane."""
        index = lanes.index(self.rows, self.device)
        return gather(self.schedule.layouts[node], self.golden[node], index)

    def copy_golden(self, layout: Layout, node: int, pack: Pack, lanes: np.ndarray) -> None:
        rows = self.rows[pack.lanes.runs[lanes]]
        put(layout, pack.value, lanes, self.golden[node], rows)

    def _join(self, step: Step, dirty: list[int]) -> list[Pack]:
        """Line up the rows of several inputs; what an input has not dirtied comes from golden."""
        states = [self.states[i] for i in dirty]
        result = []
        for lanes, alive in self._line_up(states):
            if self._late is not None:  # a row may differ by another input than the one compared
                alive = alive.copy()
            values = []
            valid = np.arange(self.batch) < lanes.count
            for node in step.inputs:
                state = self.states.get(node)
                if state is None:
                    values.append(self._golden_of(node, lanes))
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
            if not writable_memory(pack.value):
                pack.value = pack.value.contiguous()
            wanted, runs, source = wanted[stale], runs[stale], source[stale]
            clean = wanted[source < 0]
            if len(clean):
                self.copy_golden(layout, node, pack, clean)
            value = pack.value
        else:
            value = self._golden_of(node, lanes)
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
