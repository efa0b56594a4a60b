"""Fault-free values of one batch, and what is made of them when first asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.frames import Frame, pixels
from progip.engine.incremental.graph import Layout


class Golden(dict[int, Any]):
    """The golden values of the nodes that a propagation reads."""

    def __init__(self) -> None:
        super().__init__()
        self._pixels: dict[int, np.ndarray] = {}
        self._last: tuple[int, Any] = (-1, None)
        self._extremes: dict[int, tuple[Tensor, ...]] = {}
        self._largest: dict[int, Tensor] = {}

    def forget(self) -> None:
        """Free all values: what still refers to this is a cycle, freed whenever Python looks."""
        self.clear()
        self._pixels.clear()
        self._extremes.clear()
        self._largest.clear()
        self._last = (-1, None)

    def largest(self, node: int, layout: Layout) -> Tensor:
        """(rows,) float64, the largest magnitude of each row of a node."""
        if node not in self._largest:
            rows = layout.rows(self[node]).flatten(1)
            self._largest[node] = rows.abs().amax(1).double()
        return self._largest[node]

    def pixels(self, node: int) -> np.ndarray:
        """The value of a node as (rows * height * width, channels)."""
        if node not in self._pixels:
            value = self[node].contiguous(memory_format=torch.channels_last)
            self._pixels[node] = pixels(value)
        return self._pixels[node]

    def value(self, makers: Mapping[int, Any], node: int) -> Any:
        """The value of any node, computed from others where it was not kept."""
        if node in self:
            return self[node]
        if self._last[0] != node:
            step = makers[node]
            made = step.function([self.value(makers, i) for i in step.inputs])
            self._last = node, made
        return self._last[1]

    def around(
        self, node: int, rows: np.ndarray, frame: Frame, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The least and the largest value of rows outside of windows."""
        if node not in self._extremes:
            value = self[node]
            least, most = value.amin(1), value.amax(1)
            self._extremes[node] = (
                least, most, *least.flatten(1).min(1), *most.flatten(1).max(1)
            )  # fmt: skip
        least, most, low, low_at, high, high_at = self._extremes[node]
        index = torch.from_numpy(rows)
        results = []
        for maps, extreme, at, nothing in (
            (least, low, low_at, float("inf")),
            (most, high, high_at, float("-inf")),
        ):
            result = extreme[index]
            y, x = np.divmod(at.numpy()[rows], shape[1])
            inside = (y >= frame.y) & (y < frame.y + frame.h)
            inside &= (x >= frame.x) & (x < frame.x + frame.w)
            lanes = inside.nonzero()[0]
            if len(lanes):
                part = maps[index[lanes]].numpy()
                down = frame.y[lanes][:, None] + np.arange(frame.h)
                right = frame.x[lanes][:, None] + np.arange(frame.w)
                part[np.arange(len(lanes))[:, None, None], down[:, :, None], right[:, None]] = (
                    nothing
                )
                flat = part.reshape(len(lanes), -1)
                of_part = flat.min(1) if nothing > 0 else flat.max(1)
                result[torch.from_numpy(lanes)] = torch.from_numpy(of_part)
            results.append(result)
        return results[0], results[1]
