"""The gradient maxima of all steps of a detector that moves its input more than once."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.ood_methods.base import Detection
from progip.probes.base import Observation, Probe
from progip.records import Column


class StepGradients(Probe):
    """The highest and the lowest of the largest absolute gradients of all steps; NaN if one is.

    Of a detector with one step both are ``grad_max``.
    """

    name: ClassVar[str] = "step_gradients"
    needs: ClassVar[tuple[str, ...]] = ("grad_max",)
    produces: ClassVar[tuple[Column, ...]] = (
        Column("grad_max_highest", pa.float32(), paired=True),
        Column("grad_max_lowest", pa.float32(), paired=True),
    )

    def measure(self, detection: Detection) -> Tensor:
        gradients = (detection.gradient, *detection.later_gradients)
        steps = torch.stack([gradient.abs().flatten(1).amax(1) for gradient in gradients], 1)
        return torch.stack([steps.amax(1), steps.amin(1)], 1)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        found = seen.measured[self.name][:count].cpu().numpy()
        return {column.name: found[:, place] for place, column in enumerate(self.produces)}
