"""Faults on their way into a propagation: runs join a node as golden rows, and bits are flipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.endings import Endings
from progip.engine.incremental.graph import Layout
from progip.engine.incremental.lanes import DirtyRows, Pack
from progip.engine.incremental.room import Sweep, room, writable_memory
from progip.engine.incremental.steps import Step
from progip.engine.incremental.transfers import upload
from progip.number_formats.base import NumberFormat
from progip.number_formats.codes import registers


@dataclass
class Fault:
    """The hits of one site.

    Attributes:
        runs: (hits,); a run may be hit several times.
        where: position of each neuron in a row.
        masks: int32, bits to flip in the neuron's code.
        format: of the values.
        clears: int32, bits to clear before; None for none.
    """

    runs: np.ndarray
    where: tuple[np.ndarray, ...]
    masks: np.ndarray
    format: NumberFormat
    clears: np.ndarray | None = None

    def of(self, chosen: np.ndarray) -> "Fault":
        """Some of the hits."""
        where = tuple(w[chosen] for w in self.where)
        clears = None if self.clears is None else self.clears[chosen]
        return Fault(self.runs[chosen], where, self.masks[chosen], self.format, clears)


class Opening(Protocol):
    """What opens windows around faults."""

    crops: dict[int, list[Any]]

    def begin(self, node: int, runs: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> list[Any]:
        """New windows of golden values around one pixel each."""


class Injection:
    """The faults of one propagation.

    Args:
        faults: for each site (node number), its faults.
        endings: ends runs whose fault changes next to nothing; None: none.
        many: runs may be hit several times; windows are not opened then.

    Attributes:
        fired: (runs,) how often each run was hit.
    """

    def __init__(
        self,
        sweep: Sweep,
        windows: Opening,
        faults: dict[int, Fault],
        endings: Endings | None,
        many: bool = False,
    ) -> None:
        self._sweep, self._windows, self._many = sweep, windows, many
        self._device = sweep.schedule.traced.device
        self.fired = np.zeros(len(sweep.rows), dtype=np.int64)
        self._values: list[tuple[np.ndarray, Tensor, Tensor]] = []
        self._faults = faults if endings is None else self._going_on(faults, endings)

    def step(self, step: Step) -> None:
        """A site: what is dirty before it is dirty after it, and its faults join."""
        node, source, sweep = step.node, step.inputs[0], self._sweep
        if source in sweep.states:
            sweep.states[node] = sweep.states[source]
        if self._windows.crops.get(source):
            self._windows.crops[node] = list(self._windows.crops[source])
        fault = self._faults.get(node)
        if fault is None:
            return
        layout = sweep.schedule.layouts[node]
        if self._many:
            self._several(step, fault, layout)
            return
        if node in sweep.schedule.windowed and not fault.format.metadata_fields:
            channel, y, x = fault.where
            for value, members, down, right in self._windows.begin(node, fault.runs, (y, x)):
                index = (np.arange(len(members)), channel[members], down, right)
                self._flip(value, index, fault, members)
            return
        for pack, lanes, members in room(sweep, node, fault.runs, step.writable):
            made = self._registers(layout, pack.value, lanes, fault, members)
            index = (lanes, *(w[members] for w in fault.where))
            self._flip(layout.rows(pack.value), index, fault, members, made)

    def _several(self, step: Step, fault: Fault, layout: Layout) -> None:
        """Hits of runs that may be dirty already, each in its row as it has become."""
        node, sweep = step.node, self._sweep
        dirty = np.zeros(len(sweep.rows), dtype=bool)
        for pack in sweep.states[node].packs if node in sweep.states else []:
            dirty[pack.lanes.runs[pack.alive]] = True
        clean = np.unique(fault.runs[~dirty[fault.runs]])
        own = [p for p, _, _ in room(sweep, node, clean, step.writable)] if len(clean) else []
        packs = list(sweep.states[node].packs)
        pack_of, lane_of = sweep.states[node].locate(len(sweep.rows))
        for number in np.unique(pack_of[fault.runs]).tolist():
            members = np.flatnonzero(pack_of[fault.runs] == number)
            pack = packs[number]
            alone = any(pack is p for p in own) or (step.writable and writable_memory(pack.value))
            value = pack.value if alone else pack.value.clone()
            # of its own: a comparison read later may clear what it is shared with
            pack = packs[number] = Pack(pack.lanes, value, pack.alive.copy(), pack.valid)
            lanes = lane_of[fault.runs[members]].astype(np.int64)
            made = self._registers(layout, pack.value, lanes, fault, members)
            index = (lanes, *(w[members] for w in fault.where))
            self._flip(layout.rows(pack.value), index, fault, members, made)
        sweep.states[node] = DirtyRows(packs)

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """(runs,) float32 each: the value that was hit, before and after; NaN for several hits."""
        if self._many:
            nothing = np.full(len(self._sweep.rows), np.nan, dtype=np.float32)
            return nothing, nothing
        before, after = np.zeros((2, len(self._sweep.rows)), dtype=np.float32)
        if self._values:
            runs = np.concatenate([runs for runs, _, _ in self._values])
            pairs = [torch.stack([old, new]) for _, old, new in self._values]
            before[runs], after[runs] = self._sweep.reads.now(torch.cat(pairs, 1))
        return before, after

    def _going_on(self, faults: dict[int, Fault], endings: Endings) -> dict[int, Fault]:
        """The faults of runs that are not ended by them; the others fire without effect."""
        sweep, found = self._sweep, []
        for node, fault in faults.items():
            rows, *where, masks = self._uploaded(sweep.rows[fault.runs], *fault.where, fault.masks)
            before = sweep.schedule.layouts[node].rows(sweep.golden[node])[(rows, *where)]
            codes = fault.format.encode(before, None) ^ masks.to(torch.int32)
            after = fault.format.decode(codes, None)
            found.append((before, after, endings.change(node, rows, before, after)))
        if not found:
            return faults
        runs = np.concatenate([fault.runs for fault in faults.values()])
        ended = endings.at_faults(runs, torch.cat([change for _, _, change in found]))
        ends = np.cumsum([len(fault.runs) for fault in faults.values()])[:-1]
        left = {}
        for (node, fault), (before, after, _), lost in zip(
            faults.items(), found, np.split(ended, ends), strict=True
        ):
            if lost.any():
                (chosen,) = self._uploaded(lost.nonzero()[0])
                self._note(fault.runs[lost], before[chosen], after[chosen])
            if not lost.all():
                left[node] = fault.of(~lost) if lost.any() else fault
        return left

    def _uploaded(self, *arrays: np.ndarray) -> tuple[Tensor, ...]:
        """Arrays of one length on the device, as int64, in one go."""
        return upload(np.stack([a.astype(np.int64) for a in arrays]), self._device).unbind()

    def _registers(
        self, layout: Layout, value: Tensor, lanes: np.ndarray, fault: Fault, members: np.ndarray
    ) -> Any:
        if not fault.format.metadata_fields:
            return None
        own = layout.rows(value)[upload(lanes, self._device)]
        shape = layout.axis.row_shape(layout.shape)
        position = np.ravel_multi_index(tuple(w[members] for w in fault.where), shape)
        return registers(fault.format, own, np.arange(len(lanes)), position)

    def _flip(
        self,
        values: Tensor,
        index: Sequence[np.ndarray],
        fault: Fault,
        members: np.ndarray,
        metadata: Any = None,
    ) -> None:
        code = fault.format
        cleared = fault.clears if fault.clears is not None else np.zeros(len(fault.runs))
        *at, masks, clears = self._uploaded(*index, fault.masks[members], cleared[members])
        before = values[tuple(at)]
        codes = code.encode(before, metadata)
        if fault.clears is not None:
            codes = codes & ~clears.to(torch.int32)
        after = code.decode(codes ^ masks.to(torch.int32), metadata)
        values[tuple(at)] = after
        self._note(fault.runs[members], before, after)

    def _note(self, runs: np.ndarray, before: Tensor, after: Tensor) -> None:
        if self._many:
            np.add.at(self.fired, runs, 1)
            return
        self._values.append((runs, before, after))
        self.fired[runs] += 1
