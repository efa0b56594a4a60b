"""Ranger in its detection-only form: range checks at every activation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.described import WORKS
from progip.errors import ProgipError
from progip.protections.base import (
    LARGEST,
    Evidence,
    Judgement,
    Limit,
    Protection,
    outside,
    passing,
)


@dataclass(kw_only=True)
class Ranger(Protection):
    """Range restriction (Chen, Li, Pattabiraman, DSN 2021) as the ProGIP source uses it.

    An alarm is raised if any value of any activation, or of a pool or reshape that directly
    follows one, leaves the range seen on clean ID training images, in any forward pass. Nothing
    is corrected. Backward passes run no activation, so a backward fault shows only if the
    perturbed input drives a later forward pass out of range. NaN raises the alarm. Alarms of all
    forward passes after the first (a detector of several steps has more than two) have the stage
    ``second_forward``.

    Attributes:
        margin: how far a value may leave its range, in widths of the range.
    """

    sentence: ClassVar[str] = (
        "Detection-only Ranger raises an alarm where an activation leaves its range on clean "
        "training images [Ranger]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Ranger": WORKS["Ranger"],
    }

    margin: float = 0.0

    watches: ClassVar[tuple[str, ...]] = ("range_excess_first", "range_excess_second")

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ProgipError(f"protection '{self.name}': margin must not be negative")

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {"range_excess": self.margin}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        return outside(self.limits(thresholds), evidence)

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...]:
        # in the precision of the evidence
        most = min(float(np.float32(thresholds["range_excess"])), LARGEST)
        return (
            Limit("first_forward", "range_excess_first", -np.inf, most),
            Limit("second_forward", "range_excess_second", -np.inf, most),
        )

    def least_margins(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """How far the worst activation of any forward pass left its range; NaN passes never."""
        worst = np.maximum(evidence["range_excess_first"], evidence["range_excess_second"])
        return {"margin": passing(worst.astype(np.float64), ~np.isnan(worst))}
