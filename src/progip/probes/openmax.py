"""The OpenMax probability that the logits are of no known class."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from progip.ood_methods.base import finite_or_nan
from progip.ood_methods.openmax import OpenMax, fitted, unknown_probability
from progip.probes.base import Observation, Probe
from progip.records import Column


class UnknownProbability(Probe):
    """That of ``OpenMax`` with its default options; NaN where a logit is not finite."""

    name: ClassVar[str] = "openmax"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("unknown_probability", pa.float64(), paired=True),
    )
    learns: ClassVar[bool] = True

    def __init__(self) -> None:
        self._state: dict[str, Tensor] = {}

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Means and tails. Raises ProgipError as ``OpenMax.fit``."""
        self._state = fitted(f"probe '{self.name}'", network, batches, OpenMax.tail)

    def state(self) -> dict[str, Tensor]:
        return self._state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._state = dict(state)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        logits = seen.logits[:count]
        found = unknown_probability(logits.double(), self._state, OpenMax.alpha)
        return {"unknown_probability": finite_or_nan(found, logits).cpu().numpy()}
