"""Traces of layers: one number a channel of the outputs of chosen layers."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.models.calls import Call
from progip.probes.base import Observation, Probe
from progip.records import Column


class LayerTraces(Probe):
    """Means over space of each channel of some layers' outputs in the first forward pass.

    One layer after the other in the order of execution, in float32. NaN or infinite where a value
    is, or where their sum overflows.

    Args:
        layers: regular expression of the layers' whole names; "" for the last layer of each stage
            of the network: ``engine.stages``.
    """

    name: ClassVar[str] = "layer_traces"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("layer_traces", pa.list_(pa.float32()), wide=True),
    )

    def __init__(self, layers: str = "") -> None:
        self.layers: str = layers

    @property
    def label(self) -> str:
        return f"{self.name}:{self.layers}" if self.layers else self.name

    def measure_layers(self, outputs: Mapping[Call, Tensor]) -> Tensor:
        means = [rows.flatten(2).mean(2) if rows.dim() > 2 else rows for rows in outputs.values()]
        return torch.cat(means, 1)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"layer_traces": seen.measured[self.name][:count].cpu().numpy()}
