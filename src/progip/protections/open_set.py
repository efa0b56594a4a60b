"""Open-set scores as detectors of faults: an output unlike any that clean inputs give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
from progip.records import POPULATIONS

#: by score, the column that has it
COLUMNS = {
    "mls": "largest_logit",
    "energy": "energy",
    "msp": "confidence",
    "distance": "class_distance",
    "openmax": "unknown_probability",
    "detector": "score",
}
#: of these only large values are odd
ONE_SIDED = ("distance", "openmax")


@dataclass(kw_only=True)
class OpenSet(Protection):
    """Limits of an open-set score (Gavarini, Stucchi, Ruospo, Boracchi, Sanchez, IOLTS 2022).

    A fault moves the network's output away from where clean inputs lie, so a score that tells
    unknown classes is a cheap fault detector. An alarm is raised where the score lies outside its
    limits, which are set from clean calibration images, and where a logit is NaN or infinite.
    It does not tell a fault from an OOD input, which may raise it as well, the more so by limits
    from ID images alone. All scores but ``detector`` are of the first forward pass.

    Faithful to the abstract of the source, whose scores MLS, OpenMax, energy and ODIN are; the
    limits are a choice made here: quantiles, or the factors of the first author's earlier code,
    where the distance rule is from, too.

    Attributes:
        score: ``mls`` (largest logit), ``energy`` (log-sum-exp of the logits), ``msp`` (largest
            softmax probability), ``distance`` (of the logits to the mean of their class, in units
            of the largest of its training images), ``openmax`` (probability of the unknown class)
            or ``detector`` (the score of the cell's own ood_method: ODIN's, in the source). All but
            the last need their probe: largest_logit, energy, confidence, class_distance, openmax.
        limits_by: ``quantile``: the limits are the quantiles q / 2 and 1 - q / 2 of the clean
            scores; ``factor``: g_l times the smallest and g_u times the largest of them. Of a
            negative extreme it is 2 - g, so that g_l below and g_u above 1 always widen.
            ``distance`` and ``openmax`` have an upper limit alone: the quantile 1 - q; g_u times
            the largest distance of the class's training images; g_u times the largest clean
            probability.
        q: share of clean scores outside; with few images the limits lie near the extremes.
        g_l, g_u: see ``limits_by``.
        calibrate_on: ``id`` (the source) or ``all``, ID and OOD images as for ProGIP.
    """

    sentence: ClassVar[str] = (
        "Open-set protection raises an alarm where a score of the logits lies outside limits "
        "from clean calibration images [Open-set]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Open-set": "Gavarini, Stucchi, Ruospo, Boracchi, Sanchez: Open-set recognition: an "
        "inexpensive strategy to increase DNN reliability. IOLTS 2022. "
        "https://doi.org/10.1109/IOLTS56730.2022.9897805",
    }

    score: str = "mls"
    limits_by: str = "quantile"
    q: float = 0.001
    g_l: float = 0.9
    g_u: float = 1.45
    calibrate_on: str = "id"

    def __post_init__(self) -> None:
        for key, choices in (
            ("score", tuple(COLUMNS)),
            ("limits_by", ("quantile", "factor")),
            ("calibrate_on", ("id", "all")),
        ):
            if getattr(self, key) not in choices:
                raise ProgipError(
                    f"protection '{self.name}': {key}={getattr(self, key)!r} is not one of "
                    f"{', '.join(choices)}"
                )
        if not (0 <= self.q < 1 and 0 <= self.g_l <= 1 <= self.g_u):
            raise ProgipError(
                f"protection '{self.name}': q must be from 0 to below 1, g_l from 0 to 1 and g_u "
                f"at least 1, got q={self.q}, g_l={self.g_l}, g_u={self.g_u}"
            )

    @property
    def watches(self) -> tuple[str, ...]:  # type: ignore[override]  # which column is an option
        return (COLUMNS[self.score], "nonfinite_logits")

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        return ("id",) if self.calibrate_on == "id" else POPULATIONS

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        scores = self._clean_scores(clean)
        one_sided = self.score in ONE_SIDED
        if self.limits_by == "quantile":
            below, above = (0.0, self.q) if one_sided else (self.q / 2, self.q / 2)
            low, high = np.quantile(scores, [below, 1 - above])
        elif self.score == "distance":
            low, high = -LARGEST, self.g_u
        else:
            low, high = float(scores.min()), float(scores.max())
            low -= (1 - self.g_l) * abs(low)
            high += (self.g_u - 1) * abs(high)
        if one_sided:
            low = -LARGEST
        return {"low": max(float(low), -LARGEST), "high": min(float(high), LARGEST)}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        return outside(self.limits(thresholds), evidence)

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...]:
        return (
            Limit(self.score, COLUMNS[self.score], thresholds["low"], thresholds["high"]),
            Limit("nonfinite", "nonfinite_logits", 0.0, 0.0),
        )

    def suspicion(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> np.ndarray:
        """How far a score lies beyond the extremes of clean ones, in widths of their range.

        Negative inside: for a one-sided score how far below the largest, else the distance to the
        nearer extreme.
        """
        usual = self._clean_scores(clean)
        score = evidence[COLUMNS[self.score]].astype(np.float64)
        with np.errstate(all="ignore"):
            beyond = (score - usual.max()) / np.ptp(usual)
            if self.score not in ONE_SIDED:
                beyond = np.maximum(beyond, (usual.min() - score) / np.ptp(usual))
        finite = np.isfinite(score) & ~evidence["nonfinite_logits"].astype(bool)
        return passing(beyond, finite)

    def _clean_scores(self, clean: Evidence) -> np.ndarray:
        """Of calibration images. Raises ProgipError where one is not finite."""
        column = COLUMNS[self.score]
        scores: np.ndarray = clean[column].astype(np.float64)
        if not np.isfinite(scores).all():
            raise ProgipError(
                f"protection '{self.name}': {column} of a clean calibration image is not finite; "
                "the weights or the normalisation do not fit"
            )
        return scores
