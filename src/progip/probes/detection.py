"""What the detector itself computes: class, score, gradient maximum, whether they are finite."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.probes.base import Observation, Probe
from progip.records import NO_CLASS, Column


class DetectionProbe(Probe):
    """The outcome of the detector. Logits that hold a NaN have no class (``records.NO_CLASS``)."""

    name: ClassVar[str] = "detection"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("class", pa.int32(), paired=True),  # -1: the logits hold a NaN, there is no class
        Column("score", pa.float64(), paired=True),
        Column("grad_max", pa.float32(), paired=True),
        Column("nonfinite_logits", pa.bool_()),
        Column("nonfinite_gradient", pa.bool_()),
        Column("nonfinite_score", pa.bool_()),
    )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        logits = seen.logits[:count]
        finite = torch.isfinite(logits).all(1)
        klass = logits.argmax(1).masked_fill(torch.isnan(logits).any(1), NO_CLASS)
        grad_max, score = seen.grad_max[:count], seen.score[:count]
        columns = {
            "class": klass.int().cpu().numpy(),
            "score": score.cpu().numpy(),
            "grad_max": grad_max.cpu().numpy(),
            "nonfinite_logits": ~finite.cpu().numpy(),
        }
        columns["nonfinite_gradient"] = ~np.isfinite(columns["grad_max"])
        columns["nonfinite_score"] = ~np.isfinite(columns["score"])
        return columns
