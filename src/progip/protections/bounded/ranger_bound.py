"""Ranger's bounds with a choice of what becomes of values beyond them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from progip.described import WORKS
from progip.protections.bounded.base import BoundedActivation, Bounds
from progip.protections.bounded.data import SearchData
from progip.protections.bounded.profile import maxima
from progip.protections.bounded.sites import relu_calls
from progip.storage.whole_files import Checkpoint


@dataclass(kw_only=True)
class RangerBound(BoundedActivation):
    """Bounds are the largest outputs on clean training images.

    Source: Chen, Li, Pattabiraman, DSN 2021, as the RReLU toolbox uses it: beyond its bound a value
    becomes zero. Clipping, as the authors do, is ``replacement=clamp``.
    """

    sentence: ClassVar[str] = (
        "Ranger bounds every ReLU by its largest output on clean training images; what is beyond "
        "is replaced, and raises an alarm [Ranger, RReLU]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Ranger": WORKS["Ranger"],
        "RReLU": WORKS["RReLU"],
    }

    validation: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._must("validation", self.validation == 0, "has no effect: nothing is chosen; leave it")

    def search(self, network: nn.Module, data: SearchData, checkpoint: Checkpoint) -> Bounds:
        calls = relu_calls(self.name, network, data.pair)
        return maxima(network, calls, data.images, self.granularity)
