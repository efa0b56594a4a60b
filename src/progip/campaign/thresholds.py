"""What is set from golden results: the threshold of the ID/OOD verdict, and how good it is."""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from progip import records
from progip.campaign.golden import Golden
from progip.campaign.judge import golden_evidence
from progip.campaign.settings import SubjectSettings
from progip.datasets.base import Split
from progip.errors import ProgipError
from progip.protections.base import Evidence, Protection
from progip.statistics.roc import auroc, fpr_at_tpr, threshold_at_tpr

TRUE_POSITIVE_RATE = 0.95


class Thresholds:
    """Thresholds of a detector and of its protections, from clean calibration images alone.

    Args:
        golden: results of the detector.
    """

    def __init__(self, settings: SubjectSettings, golden: Golden) -> None:
        self._settings = settings
        self._method = settings.ood_method
        self._golden = golden

    def clean(self, protection: Protection) -> Evidence:
        """Evidence of the calibration images that a protection is calibrated on."""
        populations = [p for p in self._method.populations if p in protection.calibrated_on]
        tables = [self._golden.tables[p, "calibration"] for p in populations]
        return golden_evidence(pa.concat_tables(tables))

    def of(self, protection: Protection) -> dict[str, float]:
        """What a protection calibrates."""
        vanishes = self._method.gradient_vanishes
        if ("id", "calibration") not in self._golden.tables:
            if protection.watches:
                raise ProgipError(
                    f"protection '{protection.name}' sets its thresholds from calibration images, "
                    f"and dataset '{self._settings.dataset.name}' has none; give "
                    "dataset.calibration=N"
                )
            return {}
        return dict(protection.calibrate(self.clean(protection), gradient_vanishes=vanishes))

    @cached_property
    def ood(self) -> float:
        """95 % of the ID calibration images score above it; 0 where a method has no verdicts.

        Raises:
            ProgipError: a clean score is not finite.
        """
        if not self._method.verdicts:
            return 0.0
        scores = self._scores("id", "calibration")
        if not np.isfinite(scores).all():
            raise ProgipError(
                f"ood_method '{self._method.name}': clean scores of "
                f"'{self._settings.dataset.name}' are not finite; the weights, the normalisation "
                "or the method's options do not fit"
            )
        return threshold_at_tpr(scores, TRUE_POSITIVE_RATE)

    @cached_property
    def base_metrics(self) -> dict[str, Any]:
        """Of the detector without faults, over the evaluation images."""
        table = self._golden.evaluation("id")
        correct = int((table["class"].to_numpy() == table["label"].to_numpy()).sum())
        accuracy = {"id_accuracy": {"correct": correct, "images": len(table)}}
        if not self._method.verdicts:
            return accuracy
        scores = {p: self._scores(p, "evaluation") for p in records.POPULATIONS}
        return {**accuracy, **_separation(scores["id"], scores["ood"], self.ood)}

    @cached_property
    def unperturbed_metrics(self) -> dict[str, Any] | None:
        """Of the method without its perturbation, with a threshold of its own; None: it has none.

        The class, and so its accuracy, is that of the method itself.
        """
        scores = self._golden.unperturbed
        if not scores or not self._method.verdicts:
            return None
        threshold = threshold_at_tpr(scores["id", "calibration"], TRUE_POSITIVE_RATE)
        found = _separation(scores["id", "evaluation"], scores["ood", "evaluation"], threshold)
        return {**found, "threshold": threshold}

    def _scores(self, population: str, split: Split) -> np.ndarray:
        scores: np.ndarray = self._golden.tables[population, split]["score"].to_numpy()
        return scores


def _separation(
    id_scores: np.ndarray, ood_scores: np.ndarray, threshold: float
) -> dict[str, float | int]:
    """How well scores tell ID from OOD images, without a threshold and with this one."""
    return {
        "auroc": auroc(id_scores, ood_scores),
        "fpr95": fpr_at_tpr(id_scores, ood_scores, TRUE_POSITIVE_RATE),
        "id_images": len(id_scores),
        "ood_images": len(ood_scores),
        "id_true_positives": int((id_scores > threshold).sum()),
        "ood_false_positives": int((ood_scores > threshold).sum()),
    }
