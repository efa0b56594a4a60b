"""How far activations leave their clean range, in the first forward pass and in later ones.

Of each the worst layer. Later ones are the second forward pass, and of a detector of several steps
those in between, too.
"""

from typing import ClassVar

import numpy as np
import pyarrow as pa
from torch import Tensor

from progip.models.calls import Call
from progip.probes.base import Observation, Probe
from progip.records import Column


class RangeProbe(Probe):
    """The range checks of Ranger (Chen, Li, Pattabiraman, DSN 2021).

    Args:
        sites: the range-checked calls, in the order of ``Observation.excess_first``.
    """

    name: ClassVar[str] = "ranges"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("range_excess_first", pa.float32()),  # widths beyond the clean range, worst layer
        Column("range_layer_first", pa.string()),
        Column("range_excess_second", pa.float32()),
        Column("range_layer_second", pa.string()),
    )

    def __init__(self, sites: list[Call]) -> None:
        self._names = np.array([layer for layer, _ in sites] or [""], dtype=object)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        columns = {}
        for suffix, excess in (("first", seen.excess_first), ("second", seen.excess_second)):
            worst, layer = _worst(excess[:count])
            columns[f"range_excess_{suffix}"] = worst
            columns[f"range_layer_{suffix}"] = np.where(worst <= 0, "", self._names[layer])
        return columns


def _worst(excess: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if excess.shape[1] == 0:
        return np.full(len(excess), -1, np.float32), np.zeros(len(excess), np.int64)
    value, position = excess.max(1)  # NaN counts as the largest
    return value.cpu().numpy(), position.cpu().numpy()
