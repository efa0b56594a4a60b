"""The five classes of the largest logits."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.errors import ProgipError
from progip.probes.base import Observation, Probe
from progip.records import NO_CLASS, Column

FIVE = 5


class TopFive(Probe):
    """Classes in falling order of their logits, of equal ones the lower class first.

    All five are ``records.NO_CLASS`` where a logit is NaN.
    """

    name: ClassVar[str] = "top_five"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("top_five", pa.list_(pa.int32(), FIVE), paired=True),
    )

    def check(self, classes: int) -> None:
        """Of five classes or fewer, every one is among the best five."""
        if classes <= FIVE:
            raise ProgipError(
                f"probes: 'top_five' of {classes} classes: all of them are among the best five; "
                "leave it out"
            )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        logits = seen.logits[:count]
        best = logits.sort(dim=1, descending=True, stable=True).indices[:, :FIVE]
        unknown = torch.isnan(logits).any(1, keepdim=True)
        return {"top_five": best.masked_fill(unknown, NO_CLASS).int().cpu().numpy()}
