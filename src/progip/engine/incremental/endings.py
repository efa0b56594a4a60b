"""Where a propagation ends runs whose change is tiny: at their fault, and at the logits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.lanes import DirtyRows, Pack
from progip.engine.incremental.room import Sweep
from progip.engine.roulette import Game


class Endings:
    """Weighted termination in one propagation.

    Attributes:
        game: decides which runs are ended, and keeps what was measured of each.
    """

    def __init__(self, sweep: Sweep, game: Game) -> None:
        self._sweep, self.game = sweep, game

    def at_fault(self, node: int, runs: np.ndarray, before: Tensor, after: Tensor) -> np.ndarray:
        """(members,) which runs end at their fault, which makes ``after`` of ``before``."""
        size = self._largest(node)[self._sweep.rows[runs]]
        change = _ratio((after.double() - before.double()).abs().cpu().numpy(), size)
        self.game.at_fault[runs] = change
        return self.game.played(runs, self.game.at_fault[runs], self.game.roulette.at_fault)

    def at_logits(self, crops: dict[int, list[Any]]) -> None:
        """End runs at the logits of the first pass; they equal golden from there on."""
        node, sweep = self._sweep.schedule.logits, self._sweep
        if node not in sweep.states:
            return
        layout, largest = sweep.schedule.layouts[node], self._largest(node)
        ended = np.zeros(len(sweep.rows), dtype=bool)
        for pack in sweep.states[node].packs:
            lanes = pack.alive.nonzero()[0]
            runs = pack.lanes.runs[lanes]
            rows = sweep.rows[runs]
            found = layout.rows(pack.value)[torch.from_numpy(lanes).to(pack.value.device)]
            golden = layout.rows(sweep.golden[node])[torch.from_numpy(rows).to(found.device)]
            change = (found.double() - golden.double()).abs().flatten(1).amax(1).cpu().numpy()
            self.game.at_logits[runs] = _ratio(change, largest[rows])
            limit = self.game.roulette.at_logits
            ended[runs] = self.game.played(runs, self.game.at_logits[runs], limit)
        if ended.any():
            self._forget(ended, crops)

    def _largest(self, node: int) -> np.ndarray:
        """The largest magnitude of the golden rows of a node."""
        return self._sweep.golden.largest(node, self._sweep.schedule.layouts[node])

    def _forget(self, ended: np.ndarray, crops: dict[int, list[Any]]) -> None:
        """Runs are dirty nowhere any more."""
        states = self._sweep.states
        for node, state in list(states.items()):
            packs = []
            for pack in state.packs:
                alive = pack.alive.copy()
                lanes = alive.nonzero()[0]
                alive[lanes] = ~ended[pack.lanes.runs[lanes]]
                if alive.any():
                    packs.append(
                        Pack(pack.lanes, pack.value, alive, pack.valid & ~(pack.alive ^ alive))
                    )
            states[node] = DirtyRows(packs)
            if not packs:
                del states[node]
        for windows in crops.values():
            for crop in windows:
                lanes = crop.alive.nonzero()[0]
                crop.alive = crop.alive.copy()
                crop.alive[lanes] = ~ended[crop.frame.runs[lanes]]
            windows[:] = [crop for crop in windows if crop.alive.any()]


def _ratio(change: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Changes in parts of sizes; what is not finite stays so, and is never tiny."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return (change / size).astype(np.float32)
