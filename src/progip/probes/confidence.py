"""How sure the network is of its class: the largest probability, and its lead over the next."""

from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.probes.base import Observation, Probe
from progip.records import Column


class Confidence(Probe):
    """Softmax of the first forward pass: ``confidence`` in [0, 1], ``top2diff`` in points.

    Top2Diff is 100 times the difference of the two largest probabilities (GoldenEye; Mahmoud et
    al., DSN 2022). Both are NaN where softmax is: for a NaN or an infinite logit.
    """

    name: ClassVar[str] = "confidence"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("confidence", pa.float64(), paired=True),
        Column("top2diff", pa.float64(), paired=True),
    )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        best = seen.logits[:count].double().softmax(1).topk(2, 1).values
        return {
            "confidence": best[:, 0].cpu().numpy(),
            "top2diff": (100 * (best[:, 0] - best[:, 1])).cpu().numpy(),
        }
