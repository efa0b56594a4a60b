"""Images by whether the fault-free network classifies them right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.conditions.base import Condition, Golden
from progip.described import WORKS


@dataclass(kw_only=True)
class Correctness(Condition):
    """ID images by whether their fault-free class is right.

    TensorFI+ injects into both, apart; GoldenEye into those classified right.

    Attributes:
        right: which of the two.
    """

    sentence: ClassVar[str] = (
        "Faults are drawn for such images alone as the fault-free network classifies right, or "
        "wrong, by the name of the condition [TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    populations: ClassVar[tuple[str, ...]] = ("id",)
    needs: ClassVar[tuple[str, ...]] = ("class",)

    right: bool

    def holds(self, golden: Golden) -> np.ndarray:
        correct: np.ndarray = golden["class"] == golden["label"]
        return correct if self.right else ~correct
