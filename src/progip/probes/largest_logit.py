"""The largest logit of the first forward pass, the confidence that open-set scores start from."""

from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.probes.base import Observation, Probe
from progip.records import Column


class LargestLogit(Probe):
    """The maximum logit (Hendrycks et al., ICML 2022); NaN where a logit is NaN."""

    name: ClassVar[str] = "largest_logit"
    produces: ClassVar[tuple[Column, ...]] = (Column("largest_logit", pa.float32(), paired=True),)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"largest_logit": seen.logits[:count].amax(1).cpu().numpy()}
