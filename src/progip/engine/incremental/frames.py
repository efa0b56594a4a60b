"""Windows of rows: where each lies in its image, and how pixels get into and out of them."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

FILLED = 0.7  # share of a pack's pixels that are needed, at least
#: numbers of windows in a pack, and their sides: few, as each shape compiles a kernel.
LANES = (4, 8, 16, 32)
SIDES = np.array([4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192])


class Place(NamedTuple):
    """Top left corners of windows of one size, which may leave the image."""

    y: np.ndarray
    x: np.ndarray
    h: int
    w: int


class Frame:
    """The windows of a pack, one for each lane; several nodes share one object.

    Attributes:
        runs: which run each lane belongs to; lanes from ``count`` on hold anything.
        y, x: top left corner of each window.
        h, w: size of all of them.
    """

    __slots__ = ("count", "h", "runs", "w", "x", "y")

    def __init__(self, runs: np.ndarray, place: Place, count: int) -> None:
        self.runs, self.count = runs, count
        self.y, self.x, self.h, self.w = place

    @property
    def lanes(self) -> int:
        return len(self.runs)

    @property
    def place(self) -> Place:
        return Place(self.y, self.x, self.h, self.w)


class Crop:
    """The values of a node in the windows of a frame; outside them its rows equal golden.

    Attributes:
        value: (lanes, channels, h, w), channels last; or a tuple of such.
        alive: for each lane, whether its row differs from golden.
        valid: for each lane, whether it holds what its run has here.
    """

    __slots__ = ("alive", "frame", "valid", "value")

    def __init__(self, frame: Frame, value: Any, alive: np.ndarray, valid: np.ndarray) -> None:
        self.frame, self.value, self.alive, self.valid = frame, value, alive, valid


def pixels(value: Tensor) -> np.ndarray:
    """(rows * height * width, channels) over the same memory, if it is channels last."""
    array: np.ndarray = value.permute(0, 2, 3, 1).numpy()
    return array.reshape(-1, array.shape[-1])


def cut(
    source: np.ndarray, rows: np.ndarray, place: Place, shape: tuple[int, int], fill: float
) -> Tensor:
    """Windows of images.

    Args:
        source: ``pixels`` of the images.
        rows: which image each window is of.
        shape: height and width of the images.
        fill: the value outside them.
    """
    height, width = shape
    y = place.y[:, None] + np.arange(place.h)
    x = place.x[:, None] + np.arange(place.w)
    lanes = len(rows)
    inside = bool(
        place.y.min() >= 0
        and place.x.min() >= 0
        and place.y.max() + place.h <= height
        and place.x.max() + place.w <= width
    )
    line = rows[:, None] * height + (y if inside else y.clip(0, height - 1))
    column = x if inside else x.clip(0, width - 1)
    index = line[:, :, None] * width + column[:, None, :]
    memory = torch.from_numpy(source)[torch.from_numpy(index.ravel())]
    if not inside:
        outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
        memory.numpy()[outside.ravel()] = fill
    return memory.view(lanes, place.h, place.w, -1).permute(0, 3, 1, 2)


def paste(
    target: np.ndarray,
    size: tuple[int, int],
    lanes: np.ndarray,
    corner: tuple[np.ndarray, np.ndarray],
    value: Tensor,
    chosen: np.ndarray,
) -> None:
    """Write windows into larger ones, or into whole rows, what lies outside left out.

    Args:
        target: ``pixels`` of them.
        size: their height and width.
        lanes: which of them each window goes into.
        corner: where in it, down and to the right.
        value: (n, channels, h, w) windows.
        chosen: which of these.
    """
    height, width = size
    h, w = value.shape[2:]
    down, right = corner
    y = down[:, None] + np.arange(h)
    x = right[:, None] + np.arange(w)
    index = ((lanes * height)[:, None] + y)[:, :, None] * width + x[:, None, :]
    source = value.permute(0, 2, 3, 1)
    if len(chosen) != len(value) or (chosen != np.arange(len(value))).any():
        source = source[torch.from_numpy(chosen)]
    given = source.numpy().reshape(-1, value.shape[1])
    if (
        down.min() < 0 or right.min() < 0 or down.max() + h > height or right.max() + w > width
    ):  # of no use to what is computed
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        inside = inside.ravel()
        target[index.ravel()[inside]] = given[inside]
    else:
        target[index.ravel()] = given


def boxes(differs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bounding boxes of what is true: top, left, bottom, right of each of (n, h, w)."""
    rows, columns = (np.logical_or.reduce(differs, axis=axis) for axis in (2, 1))
    h, w = differs.shape[1:]
    return (
        rows.argmax(1),
        columns.argmax(1),
        h - rows[:, ::-1].argmax(1),
        w - columns[:, ::-1].argmax(1),
    )


def unequal(a: Tensor, b: Tensor) -> np.ndarray:
    """(n, h, w): where any bit of any channel differs."""
    left, right = pixels(a), pixels(b)
    kind = f"i{left.itemsize}"
    # the sum of few numbers is slower than this for any number of channels
    found: np.ndarray = (left.view(kind) != right.view(kind)).any(-1)
    return found.reshape(len(a), *a.shape[2:])


def packed(needed: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Cut sides in falling order into packs that waste little.

    Returns:
        for each pack its first and last member, how many lanes it gets, and its side.
    """
    sides = np.append(SIDES, needed.max(initial=0))[SIDES.searchsorted(needed)]
    areas = np.append(0, (sides * sides).cumsum())
    result, start = [], 0
    while start < len(sides):
        side = int(sides[start])
        for lanes in reversed(LANES):
            stop = min(start + lanes, len(sides))
            used = areas[stop] - areas[start]
            if used >= FILLED * lanes * side * side or lanes == LANES[0]:
                break
        result.append((start, stop, lanes, side))
        start = stop
    return result


def arranged(
    runs: np.ndarray,
    box: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    shape: tuple[int, int],
) -> list[tuple[Frame, np.ndarray]]:
    """Frames for runs that differ inside given boxes, and which of the runs are in each."""
    top, left, bottom, right = box
    needed = np.maximum(bottom - top, right - left)
    order = np.argsort(-needed, kind="stable")
    result = []
    for start, stop, lanes, side in packed(needed[order]):
        members = order[start:stop]
        h, w = min(side, shape[0]), min(side, shape[1])
        filled = np.resize(members, lanes)
        y, x = ((top + bottom - h) // 2)[filled], ((left + right - w) // 2)[filled]
        place = Place(y.clip(0, shape[0] - h), x.clip(0, shape[1] - w), h, w)
        result.append((Frame(runs[filled], place, len(members)), members))
    return result
