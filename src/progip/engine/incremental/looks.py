"""Single values of nodes that are asked for, whatever becomes of the runs they are of."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.room import Sweep
from progip.engine.incremental.transfers import upload


@dataclass
class Look:
    """Values of one node to be looked at: the counterpart of a ``Fault``.

    Attributes:
        runs: (looks,), of which run each value is.
        where: position of each value in a row.
    """

    runs: np.ndarray
    where: tuple[np.ndarray, ...]


class Looks:
    """What is looked at in one propagation.

    Args:
        asked: by node, one of ``Schedule.looked``.
    """

    def __init__(self, sweep: Sweep, asked: dict[int, Look]) -> None:
        self._sweep, self._asked = sweep, asked
        self._of: dict[int, list[int]] = {}
        for node in asked:
            self._of.setdefault(sweep.schedule.looked[node], []).append(node)
        self._found = {node: self._golden(node, look) for node, look in asked.items()}

    def _golden(self, node: int, look: Look) -> Tensor:
        sweep = self._sweep
        own = sweep.schedule.looked[node]
        rows = sweep.schedule.layouts[own].rows(sweep.golden[own])
        return rows[tuple(self._uploaded(sweep.rows[look.runs], *look.where))]

    def at(self, node: int) -> None:
        """A node was computed: take what its dirty rows hold."""
        if node in self._sweep.states:
            for asked in self._of.get(node, ()):
                self._look(node, self._asked[asked], self._found[asked])

    def _look(self, node: int, look: Look, found: Tensor) -> None:
        sweep = self._sweep
        state, layout = sweep.states[node], sweep.schedule.layouts[node]
        pack_of, lane_of = state.locate(len(sweep.rows))
        for number in np.unique(pack_of[look.runs]).tolist():
            if number < 0:
                continue
            chosen = np.flatnonzero(pack_of[look.runs] == number)
            into, lanes, *where = self._uploaded(
                chosen, lane_of[look.runs[chosen]], *(w[chosen] for w in look.where)
            )
            rows = layout.rows(state.packs[number].value)
            found[into] = rows[(lanes, *where)]

    def values(self, ended: np.ndarray | None) -> dict[int, np.ndarray]:
        """By node, the value of every look.

        Args:
            ended: (runs,) bool, runs of which only golden values count; None: none.
        """
        if not self._asked:
            return {}
        parts = []
        for node, look in self._asked.items():
            found = self._found[node]
            if ended is not None:
                (over,) = self._uploaded(ended[look.runs])
                found = torch.where(over.bool(), self._golden(node, look), found)
            parts.append(found)
        read = self._sweep.reads.now(torch.cat(parts))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return dict(zip(self._asked, np.split(read, ends), strict=True))

    def _uploaded(self, *arrays: np.ndarray) -> tuple[Tensor, ...]:
        device = self._sweep.schedule.traced.device
        return upload(np.stack([a.astype(np.int64) for a in arrays]), device).unbind()
