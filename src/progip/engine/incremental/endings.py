"""Where a propagation ends runs whose change is tiny: at their fault, and at the logits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from progip.engine.incremental.lanes import DirtyRows, Pack
from progip.engine.incremental.room import Sweep
from progip.engine.incremental.transfers import upload
from progip.engine.roulette import Game


class Endings:
    """Weighted termination in one propagation.

    Attributes:
        game: decides which runs are ended, and keeps what was measured of each.
    """

    def __init__(self, sweep: Sweep, game: Game) -> None:
        self._sweep, self.game = sweep, game

    def change(self, node: int, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """(hits,) changes of values of a node, in the units of ``Roulette``.

        Args:
            rows: golden row of each hit.
        """
        size = self._largest(node)[rows]
        return ((after.double() - before.double()).abs() / size).float()

    def at_faults(self, runs: np.ndarray, change: Tensor) -> np.ndarray:
        """Which of some runs (members,) end at their fault, by its change."""
        self.game.at_fault[runs] = self._sweep.reads.now(change)
        return self.game.played(runs, self.game.at_fault[runs], self.game.roulette.at_fault)

    def at_logits(self, crops: dict[int, list[Any]]) -> None:
        """End runs at the logits of the first pass; they equal golden from there on."""
        node, sweep = self._sweep.schedule.logits, self._sweep
        if node not in sweep.states:
            return
        layout, largest = sweep.schedule.layouts[node], self._largest(node)
        runs, changes = [], []
        for pack in sweep.states[node].packs:
            lanes = pack.alive.nonzero()[0]
            runs.append(pack.lanes.runs[lanes])
            where = upload(np.stack([lanes, sweep.rows[runs[-1]]]), pack.value.device)
            found = layout.rows(pack.value)[where[0]].double()
            golden = layout.rows(sweep.golden[node])[where[1]].double()
            change = (found - golden).abs().flatten(1).amax(1) / largest[where[1]]
            changes.append(change.float())
        members = np.concatenate(runs)
        self.game.at_logits[members] = sweep.reads.now(torch.cat(changes))
        ended = np.zeros(len(sweep.rows), dtype=bool)
        limit = self.game.roulette.at_logits
        ended[members] = self.game.played(members, self.game.at_logits[members], limit)
        if ended.any():
            self._forget(ended, crops)

    def _largest(self, node: int) -> Tensor:
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
