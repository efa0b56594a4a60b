"""Runs that differ from golden in a window of the image only, computed there alone."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.frames import Crop, Frame, Place, arranged, cut, paste, pixels
from progip.engine.incremental.golden import Golden
from progip.engine.incremental.lanes import Lanes, Pack
from progip.engine.incremental.markers import excess
from progip.engine.incremental.room import Sweep, room
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.steps import Step
from progip.engine.incremental.window_geometry import Inexact, Rule
from progip.engine.incremental.window_packing import lined_up, shrunk
from progip.engine.incremental.window_trials import Trials, inner

SHARE = 0.6  # of the map; a larger window is executed whole


class Windows:
    """The windows of one propagation.

    A run is alive in whole rows of a node, or in one window of it, or equals golden.

    Attributes:
        crops: of each node, the windows of its dirty runs.
    """

    def __init__(self, propagation: Sweep) -> None:
        self.crops: dict[int, list[Crop]] = {}
        self._propagation = propagation
        self._schedule: Schedule = propagation.schedule
        self._golden: Golden = propagation.golden
        self._rows = propagation.rows
        self._trials = Trials(self._schedule, self._golden)

    def begin(self, node: int, runs: np.ndarray, at: tuple[np.ndarray, np.ndarray]) -> list[Any]:
        """New windows of golden values around one pixel each.

        Returns:
            for each pack its values, which of the runs it holds, and where in them the pixels are.
        """
        shape = self._shape(node)
        y, x = at
        result = []
        for frame, members in arranged(runs, (y, x, y + 1, x + 1), shape):
            value = cut(self._golden.pixels(node), self._rows[frame.runs], frame.place, shape, 0)
            alive = np.arange(frame.lanes) < frame.count
            self.crops.setdefault(node, []).append(Crop(frame, value, alive, alive))
            lanes = slice(0, frame.count)
            result.append(
                (value, members, y[members] - frame.y[lanes], x[members] - frame.x[lanes])
            )
        return result

    def step(self, step: Step) -> list[Pack]:
        """Do an operation for all windows of its inputs.

        Runs that must be executed whole become rows of the inputs.

        Returns:
            rows of the value, where they are no longer windows.
        """
        inputs = [i for i in step.inputs if self.crops.get(i)]
        if not inputs:
            return []
        rule = self._schedule.rules.get(step.node)
        if rule is None:
            for node in inputs:
                self._widen(node)
            return []
        if rule.measures is not None:
            return self._measured(step, rule, inputs[0])
        whole = self._propagation.whole_runs(step.inputs)
        if whole is not None:
            for node in inputs:
                self._widen(node, whole)
        made = []
        shape = self._shape(inputs[0]) if len(inputs) > 1 else None  # one may be a tuple
        for frame, alive in lined_up(
            [self.crops.get(i, []) for i in inputs], len(self._rows), shape
        ):
            crop = self._computed(step, rule, frame, alive)
            if crop is not None:
                made.append(crop)
                continue
            runs = np.zeros(len(self._rows), dtype=bool)
            runs[frame.runs[alive]] = True
            for node in inputs:
                self._widen(node, runs)
        if step.compare:
            golden = self._golden.pixels(step.node)
            made = shrunk(made, golden, self._rows, self._shape(step.node))
        if made:
            self.crops[step.node] = made
        return []

    def _shape(self, node: int) -> tuple[int, int]:
        height, width = self._schedule.layouts[node].shape[2:]
        return height, width

    def _computed(self, step: Step, rule: Rule, frame: Frame, alive: np.ndarray) -> Crop | None:
        """The operation in the windows of a frame; None where it is to be done whole."""
        if rule.y is None:
            place = region = frame.place
        else:
            reached = rule.output(frame)
            if reached is None or reached.h * reached.w > SHARE * math.prod(rule.shape):
                return None
            place, region = reached, rule.inputs(reached)
        if rule.checked and not self._trials.exact(step, rule, frame.lanes, region, place):
            return None
        values, valid = [], alive
        for node in step.inputs:
            own = self._held(node, frame, alive) if rule.y is None else None
            if own is not None:
                values.append(own.value)
                valid = own.valid if len(step.inputs) == 1 else alive
            else:
                values.append(self._assembled(node, frame, alive, region, rule.fill))
        source = frame if rule.y is None else Frame(frame.runs, region, frame.count)
        try:
            value = rule.function(values, source)
        except Inexact:
            return None
        if rule.y is None:
            return Crop(frame, value, alive, valid)
        if rule.scatters:
            value = inner(rule, value, region, place)
        return Crop(Frame(frame.runs, place, frame.count), value, alive, alive)

    def _held(self, node: int, frame: Frame, alive: np.ndarray) -> Crop | None:
        """The values of a node in a frame, if they are there already."""
        for crop in self.crops.get(node, []):
            if crop.frame is frame and crop.valid[alive].all():
                return crop
        return None

    def _assembled(
        self, node: int, frame: Frame, alive: np.ndarray, region: Place, fill: float
    ) -> Tensor:
        """The values of a node in other windows than it has."""
        rows = self._rows[frame.runs]
        value = cut(self._golden.pixels(node), rows, region, self._shape(node), fill)
        target = pixels(value)
        lane_of = np.full(len(self._rows), -1)
        lanes = alive.nonzero()[0]
        lane_of[frame.runs[lanes]] = lanes
        for crop in self.crops.get(node, []):
            chosen = crop.alive.nonzero()[0]
            into = lane_of[crop.frame.runs[chosen]]
            found = into >= 0
            if not found.all():
                chosen, into = chosen[found], into[found]
            if len(chosen):
                corner = (
                    crop.frame.y[chosen] - region.y[into],
                    crop.frame.x[chosen] - region.x[into],
                )
                paste(target, (region.h, region.w), into, corner, crop.value, chosen)
        return value

    def _widen(self, node: int, wanted: np.ndarray | None = None) -> None:
        """Turn windows into whole rows: all, or those of the wanted runs."""
        kept, moved = [], []
        for crop in self.crops.get(node, []):
            chosen = crop.alive if wanted is None else crop.alive & wanted[crop.frame.runs]
            if chosen.any():
                moved.append((crop, chosen.nonzero()[0]))
                left = crop.alive & ~chosen
                if left.any():
                    kept.append(Crop(crop.frame, crop.value, left, crop.valid & ~chosen))
            else:
                kept.append(crop)
        if not moved:
            return
        self.crops[node] = kept
        runs = np.concatenate([crop.frame.runs[lanes] for crop, lanes in moved])
        owner = np.repeat(np.arange(len(moved)), [len(lanes) for _, lanes in moved])
        lane = np.concatenate([lanes for _, lanes in moved])
        shape = self._shape(node)
        for pack, lanes, members in room(self._propagation, node, runs):
            rows = pack.value.permute(0, 2, 3, 1)
            whole = rows.contiguous()
            target = whole.numpy().reshape(-1, whole.shape[3])
            for k in np.unique(owner[members]):
                chosen = owner[members] == k
                crop, source = moved[k][0], lane[members[chosen]]
                corner = crop.frame.y[source], crop.frame.x[source]
                paste(target, shape, lanes[chosen], corner, crop.value, source)
            if whole.data_ptr() != rows.data_ptr():
                rows.copy_(whole)

    def _measured(self, step: Step, rule: Rule, node: int) -> list[Pack]:
        """The range check: of the windows, and of golden values around them."""
        assert rule.measures is not None
        shape, batch = self._shape(node), self._propagation.batch
        runs, found = [], []
        for crop in self.crops[node]:
            frame, alive = crop.frame, crop.alive.nonzero()[0]
            inside = crop.value.flatten(1)
            outside = self._golden.around(node, self._rows[frame.runs], frame, shape)
            least = torch.minimum(inside.amin(1), outside[0])
            most = torch.maximum(inside.amax(1), outside[1])
            runs.append(frame.runs[alive])
            found.append(_limits(rule, least, most)[torch.from_numpy(alive)])
        members, values = np.concatenate(runs), torch.cat(found)
        golden = self._golden[step.node][torch.from_numpy(self._rows[members])]
        bits = torch.int32 if values.element_size() == 4 else torch.int64
        differing = (values.view(bits) != golden.view(bits)).numpy().nonzero()[0]
        packs = []
        for start in range(0, len(differing), batch):
            part = differing[start : start + batch]
            value = values.new_zeros(batch)
            value[: len(part)] = values[torch.from_numpy(part)]
            present = np.arange(batch) < len(part)
            packs.append(Pack(Lanes(batch, members[part]), value, present, present))
        return packs


def _limits(rule: Rule, least: Tensor, most: Tensor) -> Tensor:
    assert rule.measures is not None
    return excess(torch.stack([least, most], 1), [0, 1, 1], *rule.measures)
