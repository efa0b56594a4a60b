"""ProGIP: two cheap checks inside a gradient-based input-perturbation detector."""

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
class ProGIP(Protection):
    """ProGIP (Joshi et al., ACM TECS 2025): fault detectors F1 and F2.

    F1 looks at the largest absolute input gradient, before its sign is taken: faulty if above
    delta_F1 or, where a corrupted forward pass can make the gradient vanish (ODIN), if almost
    zero. F2 looks at the final score: faulty if above delta_F2. A comparison with NaN is false, so
    both are coded as "fine only if inside the limits"; the source's literal rules would pass NaN.

    The source gives no thresholds. Here they are the extremes of the clean calibration images (ID
    and OOD), widened by a margin:
    delta_F1 = (1 + gradient_margin) * max, almost zero = below min / (1 + gradient_margin);
    delta_F2 = max + score_margin * (max - min), and mirrored for the lower side.

    Attributes:
        gradient_margin: relative widening of the limits of F1.
        score_margin: widening of the limits of F2, in widths of the clean score range.
        gradient_side: ``method`` (both sides for methods whose gradient can vanish, else upper;
            the source), ``upper`` or ``both``.
        score_side: ``upper`` (the source), ``lower`` or ``both``. Faults drive the Mahalanobis
            score to minus infinity, which only the lower side can see.
    """

    sentence: ClassVar[str] = (
        "ProGIP raises an alarm where the largest input gradient or the score leaves the "
        "range of clean calibration images [ProGIP]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "ProGIP": WORKS["ProGIP"],
    }

    gradient_margin: float = 0.1
    score_margin: float = 0.1
    gradient_side: str = "method"
    score_side: str = "upper"

    watches: ClassVar[tuple[str, ...]] = ("grad_max", "score")

    def __post_init__(self) -> None:
        for key, choices in (
            ("gradient_side", ("method", "upper", "both")),
            ("score_side", ("upper", "lower", "both")),
        ):
            if getattr(self, key) not in choices:
                raise ProgipError(
                    f"protection '{self.name}': {key}={getattr(self, key)!r} is not one of "
                    f"{', '.join(choices)}"
                )
        if self.gradient_margin < 0 or self.score_margin < 0:
            raise ProgipError(f"protection '{self.name}': margins must not be negative")

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        gradient, score = clean["grad_max"].astype(np.float64), clean["score"]
        side = self.gradient_side
        both = side == "both" or (side == "method" and gradient_vanishes)
        if not gradient.max() > 0:
            raise ProgipError(
                f"protection '{self.name}': the input gradient is zero on every clean image, so "
                "its first detector has nothing to go by; the ood_method computes no gradient, or "
                "the network's output does not depend on its input"
            )
        widening = 1 + self.gradient_margin
        slack = self.score_margin * float(np.ptp(score))
        lower, upper = self.score_side != "upper", self.score_side != "lower"
        limits = {"gradient_high": float(gradient.max()) * widening}
        if both:
            limits["gradient_low"] = float(gradient.min()) / widening
        if lower:
            limits["score_low"] = float(score.min()) - slack
        if upper:
            limits["score_high"] = float(score.max()) + slack
        return limits

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        return outside(self.limits(thresholds), evidence)

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...]:
        gradient = Limit("gradient", "grad_max", high=min(thresholds["gradient_high"], LARGEST))
        if "gradient_low" in thresholds:
            # a gradient of exactly zero has vanished, whatever the clean ones were
            gradient = gradient._replace(low=max(thresholds["gradient_low"], _TINY))
        score = Limit("score", "score")
        if "score_low" in thresholds:
            score = score._replace(low=max(thresholds["score_low"], -LARGEST))
        if "score_high" in thresholds:
            score = score._replace(high=min(thresholds["score_high"], LARGEST))
        return gradient, score

    def least_margins(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """The inverse of ``calibrate``: margins at which a gradient and a score just pass."""
        gradient, score = evidence["grad_max"].astype(np.float64), evidence["score"]
        usual, scores = clean["grad_max"].astype(np.float64), clean["score"]
        with np.errstate(all="ignore"):
            widening = gradient / usual.max()
            if "gradient_low" in thresholds:
                widening = np.maximum(widening, usual.min() / gradient)
                widening[gradient <= 0] = np.inf
            slack = np.full(len(score), -np.inf)
            if "score_high" in thresholds:
                slack = np.maximum(slack, (score - scores.max()) / np.ptp(scores))
            if "score_low" in thresholds:
                slack = np.maximum(slack, (scores.min() - score) / np.ptp(scores))
        return {
            "gradient_margin": passing(widening - 1, np.isfinite(gradient)),
            "score_margin": passing(slack, np.isfinite(score)),
        }


_TINY = float(np.finfo(np.float64).smallest_subnormal)
