"""ProGIP in a detector of several gradient steps: its first check at each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.described import WORKS
from progip.protections.base import Evidence, Limit
from progip.protections.progip import ProGIP

HIGHEST, LOWEST = "grad_max_highest", "grad_max_lowest"


@dataclass(kw_only=True)
class StepProGIP(ProGIP):
    """ProGIP whose first detector F1 looks at the gradient of every step (as PRO makes several).

    The source's detectors have one step; that F1 is to hold at each is a reading made here. One
    pair of limits serves all steps: the extremes of their gradient maxima over the clean
    calibration images, widened as in ProGIP. With one step it is ProGIP. Needs the probe
    step_gradients.
    """

    sentence: ClassVar[str] = (
        "Step-ProGIP raises an alarm where the largest input gradient of any step, or the score, "
        "leaves the range of clean calibration images; ProGIP does so for a single step [ProGIP]."
    )
    references: ClassVar[Mapping[str, str]] = {"ProGIP": WORKS["ProGIP"]}
    watches: ClassVar[tuple[str, ...]] = (HIGHEST, LOWEST, "score")

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return super().calibrate(_pooled(clean), gradient_vanishes=gradient_vanishes)

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...]:
        gradient, score = super().limits(thresholds)
        return (gradient._replace(column=HIGHEST), gradient._replace(column=LOWEST), score)

    def least_margins(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """The larger of the margins at which the highest and the lowest gradient just pass."""
        usual = _pooled(clean)
        found = [
            super(StepProGIP, self).least_margins(
                {"grad_max": evidence[column], "score": evidence["score"]}, usual, thresholds
            )
            for column in (HIGHEST, LOWEST)
        ]
        return {name: np.maximum(found[0][name], found[1][name]) for name in found[0]}


def _pooled(clean: Evidence) -> Evidence:
    """Highest and lowest gradients as if they were of so many more images."""
    return {
        "grad_max": np.concatenate([clean[HIGHEST], clean[LOWEST]]),
        "score": np.concatenate([clean["score"], clean["score"]]),
    }
