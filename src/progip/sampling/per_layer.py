"""The same number of runs in every layer: what a statement about each layer needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from progip.described import WORKS
from progip.errors import ProgipError
from progip.fault_models.random import uniforms
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan, planned
from progip.sampling.strata import Strata, strata_of


@dataclass(kw_only=True)
class PerLayer(SamplingPlan):
    """Run i hits layer i modulo the number of layers; bit, neuron and image by the fault model.

    GoldenEye's campaigns have 4,096 runs in every layer. The size of the cell is ``runs_per_layer``
    times the number of layers: the key ``runs`` is not looked at.

    Attributes:
        runs_per_layer: in each.
    """

    sentence: ClassVar[str] = "Every layer is hit by the same number of runs [GoldenEye]."
    references: ClassVar[Mapping[str, str]] = {"GoldenEye": WORKS["GoldenEye"]}

    sized: ClassVar[bool] = True

    runs_per_layer: int = 4096

    def __post_init__(self) -> None:
        if self.runs_per_layer < 1:
            raise ProgipError(
                f"sampling.runs_per_layer={self.runs_per_layer}: give at least one run"
            )
        self._strata: tuple[FaultSpace, Strata] | None = None  # of the space last asked for

    def size(self, space: FaultSpace) -> int:
        """Runs of the cell."""
        return self.runs_per_layer * len(space.sites)

    def strata(self, space: FaultSpace) -> Strata:
        """One stratum a layer, in the order of execution."""
        if self._strata is None or self._strata[0] is not space:
            self._strata = (space, strata_of(space, ["layer"]))
        return self._strata[1]

    def shares(self, space: FaultSpace) -> np.ndarray:
        return self.strata(space).shares

    def plan(
        self,
        space: FaultSpace,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        strata = self.strata(space)
        layers = len(strata.shares)
        runs = np.arange(start, stop, dtype=np.int64)
        stratum = runs % layers
        atom, image, neuron = strata.draw(stratum, uniforms(seed, key, start, stop))
        weight = (strata.shares * layers)[stratum]
        return planned(space.atoms, runs, image, atom, neuron, weight, stratum)

    def describe(self, space: FaultSpace, pilot: Pilot | None) -> dict[str, Any]:
        strata = self.strata(space)
        part = 1 / len(strata.shares)
        return {
            "name": self.name,
            "by": ["layer"],
            "pilot_runs": 0,
            "strata": [
                {"name": name, "share": float(share), "pilot": part, "allocation": part}
                for name, share in zip(strata.names, strata.shares, strict=True)
            ],
        }
