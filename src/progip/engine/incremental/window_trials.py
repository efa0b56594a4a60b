"""Whether an operation in windows gives the bits that it gives for whole images: tried out."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.frames import Frame, Place, cut, pixels
from progip.engine.incremental.golden import Golden
from progip.engine.incremental.graph import same_bits
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.steps import Step
from progip.engine.incremental.tracing import Traced
from progip.engine.incremental.window_geometry import Inexact, Rule

_PROVED: WeakKeyDictionary[Traced, dict[tuple[int, ...], bool]] = WeakKeyDictionary()


class Trials:
    """The operations of a traced detector that were tried; kept for all its cells.

    Attributes:
        proved: by node and shape, whether the bits were equal.
    """

    def __init__(self, schedule: Schedule, golden: Golden) -> None:
        self.proved = _PROVED.setdefault(schedule.traced, {})
        self._schedule, self._golden = schedule, golden

    def exact(self, step: Step, rule: Rule, lanes: int, region: Place, place: Place) -> bool:
        """Whether the operation gives golden bits in windows of this shape, tried out once."""
        key = (step.node, lanes, region.h, region.w, place.h, place.w)
        if key not in self.proved:
            self.proved[key] = self._try(step, rule, lanes, place)
        return self.proved[key]

    def _try(self, step: Step, rule: Rule, lanes: int, place: Place) -> bool:
        """At the corners and in between, of different images."""
        far = [size - part for size, part in zip(rule.shape, (place.h, place.w), strict=True)]
        steps = np.arange(lanes)
        y, x = (np.linspace(0, end, lanes).round().astype(np.int64) for end in far)
        x = x[(steps * 5 + steps // 8) % lanes]
        y[: min(4, lanes)], x[: min(4, lanes)] = [0, 0, far[0], far[0]], [0, far[1], 0, far[1]]
        output = Place(y, x, place.h, place.w)
        region = output if rule.y is None else rule.inputs(output)
        frame = Frame(steps, region, lanes)
        rows = steps % self._schedule.traced.batch
        values = [self._golden.value(self._schedule.golden_makers, node) for node in step.inputs]
        parts = [
            cut(_pixels_of(v), rows, region, (v.shape[2], v.shape[3]), rule.fill) for v in values
        ]
        try:
            found = rule.function(parts, frame)
        except Inexact:
            return True  # of these values; others are looked at when they come
        if rule.scatters:
            found = inner(rule, found, region, output)
        whole = self._golden.value(self._schedule.golden_makers, step.node)
        pairs = zip(*((v if isinstance(v, tuple) else (v,)) for v in (found, whole)), strict=True)
        return all(
            same_bits(a, cut(_pixels_of(b), rows, output, rule.shape, 0))
            for a, b in pairs
            if isinstance(a, Tensor) and a.dim() == 4
        )


def inner(rule: Rule, value: Any, region: Place, place: Place) -> Any:
    """Of what inputs were written to, the part that is complete."""
    if isinstance(value, tuple):
        return tuple(v if v is None else inner(rule, v, region, place) for v in value)
    assert rule.y is not None
    assert rule.x is not None
    kept = rule.kept or (0, 0)
    down = place.y - (region.y * rule.y.stride - rule.y.padding + kept[0])
    right = place.x - (region.x * rule.x.stride - rule.x.padding + kept[1])
    part = Place(down, right, place.h, place.w)
    return cut(_pixels_of(value), np.arange(len(value)), part, tuple(value.shape[2:]), 0.0)


def _pixels_of(value: Tensor) -> np.ndarray:
    return pixels(value.contiguous(memory_format=torch.channels_last))
