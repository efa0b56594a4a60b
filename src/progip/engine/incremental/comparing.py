"""Which rows equal golden: read at once where that is cheap, else a step later."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from progip.engine.incremental.lanes import Pack, differing, gather
from progip.engine.incremental.room import Sweep
from progip.engine.incremental.steps import Step


@dataclass
class _Asked:
    """A comparison whose result is not read yet."""

    step: Step
    packs: list[Pack]
    result: Callable[[], np.ndarray]


class LateComparisons:
    """Comparisons on a device that the host does not wait for.

    Each step asks about all of its packs at once, and reads the answer of the step before. Until
    then rows that equal golden are computed as if they differed, which costs time and no outcome.
    The last answer of a sweep is never read.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._asked: _Asked | None = None

    def step(self, step: Step, packs: list[Pack]) -> list[Pack]:
        """Packs, with ``alive`` of their own, without what the comparison before found equal.

        ``ask`` about them once they are packed anew.
        """
        self._read()
        packs = [pack for pack in packs if pack.alive.any()]
        return [Pack(p.lanes, p.value, p.alive.copy(), p.valid) for p in packs]

    def ask(self, step: Step, packs: list[Pack]) -> None:
        """Compare rows with golden; what follows from packs by single inputs shares ``alive``."""
        sweep, device = self._sweep, self._sweep.schedule.traced.device
        layout, golden = sweep.schedule.layouts[step.node], sweep.golden[step.node]
        found = []
        for pack in packs:
            wanted = gather(layout, golden, pack.lanes.index(sweep.rows, device))
            found.append(differing(layout.rows(pack.value), layout.rows(wanted)))
        if found:
            self._asked = _Asked(step, packs, sweep.reads.later(torch.cat(found)))

    def _read(self) -> None:
        if self._asked is None:
            return
        asked, self._asked = self._asked, None
        parts = np.split(asked.result(), len(asked.packs))
        for pack, differs in zip(asked.packs, parts, strict=True):
            asked.step.seen += int(pack.alive.sum())
            asked.step.left += int((pack.alive & ~differs).sum())
            pack.alive &= differs
