"""What a probe is: it observes one thing of every execution, and declares the columns it makes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from progip.models.calls import Call
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
            layer leave the clean range in the first forward pass, and at most in those after it, in
            widths of that range; negative inside, NaN where an output is NaN, -1 where the method
            does not make such a pass.
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
        learns: whether ``fit`` learns anything; what it learnt is kept with golden results.
        needs: evidence of the OOD method (``OODMethod.evidence``) without which its columns say
            nothing, so that no protection may rest on them.

    Attributes:
        layers: whose outputs in the first forward pass ``measure_layers`` sees: a regular
            expression of names, or "" for the last of each stage (``engine.stages``); None: none.
    """

    name: ClassVar[str]
    produces: ClassVar[tuple[Column, ...]]
    learns: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    layers: str | None = None

    @property
    def label(self) -> str:
        """What names it with its options; for manifests."""
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}({self.label})"

    def check(self, classes: int) -> None:  # noqa: B027 - most fit any number
        """Refuse a network with so many classes. Raises ProgipError."""

    def fit(  # noqa: B027 - most learn nothing
        self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> None:
        """Learn from (images, labels) batches of ID training data; called where it ``learns``."""

    def state(self) -> dict[str, Tensor]:
        """What ``fit`` learnt, for the cache."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Take back what ``state`` gave."""

    def measure(self, detection: Detection) -> Tensor | None:
        """What to keep of an execution, (B, ...); every row must depend on its own image alone.

        Both executors run this as part of the detector, so it uses operations of PyTorch alone and
        never looks at values. None (the default): ``columns`` needs no more than ``Observation``.
        """
        return None

    def measure_layers(self, outputs: Mapping[Call, Tensor]) -> Tensor | None:
        """As ``measure``, of the outputs (B, ...) of the calls that ``layers`` names, in order."""
        return None

    @abstractmethod
    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        """The first ``count`` rows: one array (count,) a column of ``produces``.

        A column of lists of k values is an array (count, k).
        """
