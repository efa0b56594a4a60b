"""What a probe is: it observes one thing of every execution, and declares the columns it makes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from progip.ood_methods.base import Detection
from progip.records import Column


@dataclass
class Observation:
    """What one execution of B images shows; every row depends on its own image alone.

    Attributes:
        logits: (B, classes) of the first forward pass.
        grad_max: (B,) largest absolute value of the input gradient; NaN if it holds a NaN.
        score: (B,) float64.
        excess_first, excess_second: (B, range sites) how far the outputs of each range-checked
            layer leave the clean range in each forward pass, in widths of that range; negative
            inside, NaN where an output is NaN, -1 in a pass that the method does not make.
        flagged, corrected: (B,) bool and int64, of a network with a correcting protection: whether
            it found an error, how many values it corrected, in all forward passes together.
        measured: what probes measured, by the name of the probe.
        labels: (B,) int64, the true classes, ``records.OOD_LABEL`` where there is none; None where
            they are not known, as in a deployed detector.
    """

    logits: Tensor
    grad_max: Tensor
    score: Tensor
    excess_first: Tensor
    excess_second: Tensor
    flagged: Tensor | None = None
    corrected: Tensor | None = None
    measured: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None


class Probe(ABC):
    """Observes one thing of every execution, golden and faulty alike.

    Class attributes:
        name: what configurations call it.
        produces: its columns, named as in golden rows.
    """

    name: ClassVar[str]
    produces: ClassVar[tuple[Column, ...]]

    def check(self, classes: int) -> None:  # noqa: B027 - most fit any number
        """Refuse a network with so many classes. Raises ProgipError."""

    def measure(self, detection: Detection) -> Tensor | None:
        """What to keep of an execution, (B, ...); every row must depend on its own image alone.

        Both executors run this as part of the detector, so it uses operations of PyTorch alone and
        never looks at values. None (the default): ``columns`` needs no more than ``Observation``.
        """
        return None

    @abstractmethod
    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        """The first ``count`` rows: one array (count,) a column of ``produces``.

        A column of lists of k values is an array (count, k).
        """
