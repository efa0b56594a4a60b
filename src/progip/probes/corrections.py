"""What a correcting protection found and did, in all forward passes of an execution together."""

from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.probes.base import Observation, Probe
from progip.records import Column


class CorrectionProbe(Probe):
    """Part of the pipeline around a network that ``Correcting.protect`` made."""

    name: ClassVar[str] = "corrections"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("flagged", pa.bool_()),  # it found an error, in whichever forward pass
        Column("corrected", pa.int64()),  # values that it changed, in all forward passes
    )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        assert seen.flagged is not None
        assert seen.corrected is not None
        return {
            "flagged": seen.flagged[:count].cpu().numpy(),
            "corrected": seen.corrected[:count].cpu().numpy(),
        }
