"""The energy score of the logits of the first forward pass."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.probes.base import Observation, Probe
from progip.records import Column


class EnergyScore(Probe):
    """log sum exp of the logits, in float64: minus the free energy (Liu et al., NeurIPS 2020).

    NaN where a logit is NaN, infinite where one is plus infinity.
    """

    name: ClassVar[str] = "energy"
    produces: ClassVar[tuple[Column, ...]] = (Column("energy", pa.float64(), paired=True),)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"energy": torch.logsumexp(seen.logits[:count].double(), 1).cpu().numpy()}
