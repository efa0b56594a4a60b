"""The cross-entropy loss of every image."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch.nn.functional as F

from progip.probes.base import Observation, Probe
from progip.records import OOD_LABEL, Column


class Loss(Probe):
    """Cross-entropy of the first forward pass with the label, in nats, computed in float64.

    It may be NaN or infinite after a fault; it is NaN for an image without a label.
    """

    name: ClassVar[str] = "loss"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("loss", pa.float64(), paired=True, truth=True),
    )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        if seen.labels is None:
            return {"loss": np.full(count, np.nan)}
        labels = seen.labels[:count]
        known = labels != OOD_LABEL
        found = F.cross_entropy(seen.logits[:count].double(), labels.clamp(min=0), reduction="none")
        return {"loss": found.masked_fill(~known, float("nan")).cpu().numpy()}
