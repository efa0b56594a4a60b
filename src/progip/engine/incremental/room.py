"""Lanes for runs that join a node."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from progip.engine.incremental.golden import Golden
from progip.engine.incremental.lanes import DirtyRows, Lanes, Pack
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.transfers import Reads


class Sweep(Protocol):
    """What joining a node needs of a propagation."""

    schedule: Schedule
    golden: Golden
    rows: np.ndarray
    batch: int
    states: dict[int, DirtyRows]
    reads: Reads

    def golden_rows(self, node: int, runs: np.ndarray) -> Tensor:
        """A batch of golden rows of the given runs."""

    def copy_golden(self, layout: Any, node: int, pack: Pack, lanes: np.ndarray) -> None:
        """Write golden values into lanes."""

    def whole_runs(self, nodes: Sequence[int]) -> np.ndarray | None:
        """For each run, whether it is dirty in whole rows of one of the nodes."""


def room(
    propagation: Sweep, node: int, runs: np.ndarray, writable: bool | None = None
) -> list[tuple[Pack, np.ndarray, np.ndarray]]:
    """Lanes of a node for more runs, with golden values in them.

    Args:
        writable: whether the memory of its packs is the node's alone; None to find out.

    Returns:
        packs, the lanes there, and which of the runs they are for.
    """
    layout = propagation.schedule.layouts[node]
    if writable is None:
        maker = propagation.schedule.makers[node]
        writable = not maker.site or maker.writable
    packs = list(propagation.states[node].packs) if node in propagation.states else []
    left = np.ones(len(runs), dtype=bool)
    result = []
    for i, pack in enumerate(packs):
        lanes = pack.lanes
        lane_of = np.full(len(propagation.rows), -1)
        lane_of[lanes.runs[: lanes.count]] = np.arange(lanes.count)
        known = (left & (lane_of[runs] >= 0)).nonzero()[0]
        space = propagation.batch - lanes.count
        added = (left & (lane_of[runs] < 0)).nonzero()[0][:space]
        if not len(known) and not len(added):
            continue
        members = np.concatenate([known, added])
        chosen = np.arange(lanes.count, lanes.count + len(added))
        lanes.runs[chosen] = runs[added]
        lanes.count += len(added)
        chosen = np.concatenate([lane_of[runs[known]], chosen])
        kept = writable and writable_memory(pack.value)
        value = pack.value if kept else pack.value.clone()
        alive, valid = pack.alive.copy(), pack.valid.copy()
        alive[chosen] = valid[chosen] = True
        packs[i] = Pack(lanes, value, alive, valid)
        propagation.copy_golden(layout, node, packs[i], chosen)
        left[members] = False
        result.append((packs[i], chosen, members))
    rest = left.nonzero()[0]
    for start in range(0, len(rest), propagation.batch):
        members = rest[start : start + propagation.batch]
        value = propagation.golden_rows(node, runs[members])
        alive = np.arange(propagation.batch) < len(members)
        packs.append(Pack(Lanes(propagation.batch, runs[members]), value, alive, alive))
        result.append((packs[-1], np.arange(len(members)), members))
    propagation.states[node] = DirtyRows(packs)
    return result


def writable_memory(value: Tensor) -> bool:
    """Whether every element has memory of its own."""
    return all(s != 0 for s, n in zip(value.stride(), value.shape, strict=True) if n > 1)
