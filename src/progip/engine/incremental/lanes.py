"""Rows of different runs packed into batches of the traced shape."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.graph import Layout
from progip.engine.incremental.transfers import upload


class Lanes:
    """Which run each row of a batch belongs to; rows are only ever appended.

    Several nodes share one object while their rows lie alike, so that nothing need be copied
    between them.
    """

    __slots__ = ("_index", "count", "runs")

    def __init__(self, batch: int, runs: np.ndarray) -> None:
        self._index: tuple[int, Tensor] | None = None
        self.runs = np.full(batch, -1, dtype=np.int64)
        self.runs[: len(runs)] = runs
        self.count = len(runs)

    def index(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """The golden row of each lane, on the device; uploaded anew only where lanes were added.

        Args:
            rows: of each run, the row of its image in the golden batch.
        """
        if self._index is None or self._index[0] != self.count:
            found = np.zeros(len(self.runs), dtype=np.int64)
            found[: self.count] = rows[self.runs[: self.count]]
            self._index = self.count, upload(found, device)
        return self._index[1]


class Pack:
    """One batch of values of a node.

    Attributes:
        value: tensor (or tuple) of the traced shape.
        alive: for each lane, whether its row differs from golden.
        valid: for each lane, whether its row is what its run has here, dirty or golden; other
            lanes hold anything.
    """

    __slots__ = ("alive", "lanes", "valid", "value")

    def __init__(self, lanes: Lanes, value: Tensor, alive: np.ndarray, valid: np.ndarray) -> None:
        self.lanes, self.value, self.alive, self.valid = lanes, value, alive, valid


class DirtyRows:
    """All dirty rows of a node: a run is alive in at most one pack."""

    __slots__ = ("_lane_of", "_pack_of", "packs")

    def __init__(self, packs: list[Pack]) -> None:
        self.packs = packs
        self._pack_of: np.ndarray | None = None
        self._lane_of: np.ndarray | None = None

    def locate(self, runs: int) -> tuple[np.ndarray, np.ndarray]:
        """For every run, its pack (-1 where it equals golden) and lane."""
        if self._pack_of is None or self._lane_of is None:
            self._pack_of = np.full(runs, -1, dtype=np.int16)
            self._lane_of = np.zeros(runs, dtype=np.int16)
            for i, pack in enumerate(self.packs):
                lanes = pack.alive.nonzero()[0]
                members = pack.lanes.runs[lanes]
                self._pack_of[members] = i
                self._lane_of[members] = lanes
        return self._pack_of, self._lane_of


def flat(layout: Layout, tensor: Tensor) -> Tensor | None:
    """The rows as (rows, elements of a row) over the same memory; None where that is impossible."""
    size = layout.row_bytes // layout.dtype.itemsize
    if size == 0 or tensor.stride() != layout.stride:
        return None
    return tensor.as_strided((tensor.shape[0] // layout.axis.group, size), (size, 1))


def gather(layout: Layout, source: Tensor, rows: Tensor) -> Tensor:
    """A new batch: the given rows of ``source``."""
    result = layout.empty(source.device)
    into, out_of = flat(layout, result), flat(layout, source)
    if into is not None and out_of is not None:
        torch.index_select(out_of, 0, rows, out=into)
    else:
        layout.rows(result).copy_(layout.rows(source)[rows])
    return result


def put(
    layout: Layout, target: Tensor, lanes: np.ndarray, source: Tensor, rows: np.ndarray
) -> None:
    """Copy rows of ``source`` into lanes of ``target``."""
    step = layout.row_bytes
    if (
        _move is not None
        and target.device.type == "cpu"
        and step
        and target.stride() == source.stride() == layout.stride
    ):
        a, b = target.data_ptr(), source.data_ptr()
        for i, j in zip(lanes.tolist(), rows.tolist(), strict=True):
            _move(a + i * step, b + j * step, step)
        return
    into, out_of = upload(np.stack([lanes, rows]), target.device)
    layout.rows(target)[into] = layout.rows(source)[out_of]


def _from_libc(name: str, result: Any) -> Callable[[int, int, int], Any] | None:
    try:
        function = getattr(ctypes.PyDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    function.restype = result
    found: Callable[[int, int, int], Any] = function
    return found


_compare, _move = _from_libc("memcmp", ctypes.c_int), _from_libc("memmove", ctypes.c_void_p)


def differs(
    layout: Layout, value: Tensor, lanes: Sequence[int], golden: Tensor, rows: Sequence[int]
) -> list[bool]:
    """For each pair of a lane and a golden row, whether any bit differs."""
    step = layout.row_bytes
    compare = _compare
    on_host = value.device.type == "cpu" and value.stride() == golden.stride() == layout.stride
    if compare is not None and on_host and step:
        a, b = value.data_ptr(), golden.data_ptr()
        return [
            compare(a + i * step, b + j * step, step) != 0 for i, j in zip(lanes, rows, strict=True)
        ]
    left = layout.rows(value)[torch.as_tensor(lanes, device=value.device)]
    right = layout.rows(golden)[torch.as_tensor(rows, device=value.device)]
    found: list[bool] = differing(left, right).tolist()
    return found


def differing(left: Tensor, right: Tensor) -> Tensor:
    """(rows,) whether any bit of a row differs, on the device."""
    if left.is_floating_point():
        kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
        left, right = left.contiguous().view(kind), right.contiguous().view(kind)
    return (left != right).flatten(1).any(1) if left.dim() > 1 else left != right


def repack(state: DirtyRows, layout: Layout, batch: int) -> DirtyRows:
    """Merge the emptiest packs wherever that saves at least one."""
    counts = [int(pack.alive.sum()) for pack in state.packs]
    order = sorted(range(len(counts)), key=counts.__getitem__)
    best, total = 0, 0
    for taken, i in enumerate(order[:6], start=1):
        total += counts[i]
        if taken > 1 and -(-total // batch) < taken:
            best = taken
            if taken >= 4:
                break
    if not best:
        return state
    merged = set(order[:best])
    kept = [pack for i, pack in enumerate(state.packs) if i not in merged]
    sources = [(state.packs[i], state.packs[i].alive.nonzero()[0]) for i in sorted(merged)]
    runs = np.concatenate([pack.lanes.runs[lanes] for pack, lanes in sources])
    fresh = []
    for start in range(0, len(runs), batch):
        part = runs[start : start + batch]
        value = layout.empty(sources[0][0].value.device)
        at = 0
        for pack, lanes in sources:
            low, high = max(start, at), min(start + batch, at + len(lanes))
            if low < high:
                into = np.arange(low - start, high - start)
                put(layout, value, into, pack.value, lanes[low - at : high - at])
            at += len(lanes)
        if len(part) < batch:  # whatever memory held could be slow to compute with
            layout.rows(value)[len(part) :] = 0
        alive = np.zeros(batch, dtype=bool)
        alive[: len(part)] = True
        fresh.append(Pack(Lanes(batch, part), value, alive, alive))
    return DirtyRows(kept + fresh)
