"""The failures of an OOD detector (ProGIP): another class, or another ID/OOD verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.described import WORKS
from progip.outcomes.base import Context, Outcome, Runs, flags
from progip.outcomes.declared import Declared, Event

#: what manifests declare; those written before there were outcomes are of this one
DECLARED = Declared(
    name="ood_verdict",
    base="originally_correct",
    base_title="Originally correct runs",
    base_clause="runs that were right without their fault",
    events=(
        Event(
            name="classification",
            flag="classification_failure",
            base="originally_correct",
            title="Classification failures",
            clause="take another class",
            short="C",
            nonfinite="nonfinite_logits",
        ),
        Event(
            name="detection",
            flag="detection_failure",
            base="originally_correct",
            title="ID/OOD detection failures",
            clause="change the ID/OOD verdict",
            short="D",
            nonfinite="nonfinite_score",
        ),
    ),
    disjoint=True,
)


@dataclass(kw_only=True)
class OODVerdict(Outcome):
    """The two disjoint failures of the ProGIP source, before any protection.

    The verdict is ID where score > threshold, else OOD; a score that is not finite is neither, so
    it always counts as a changed verdict. An ID image is originally correct if its golden class
    and verdict are right, an OOD image if its golden verdict is. A changed verdict comes first,
    since the class of an input judged OOD is never acted on.
    """

    sentence: ClassVar[str] = (
        "Originally correct: an ID image whose fault-free class and verdict are right, an OOD "
        "image whose fault-free verdict is. A failure is an originally correct run whose ID/OOD "
        "verdict changes (detection failure; a score that is not finite counts as changed) or, "
        "where the verdict stays ID, whose class changes (classification failure). The two do not "
        "overlap [ProGIP]."
    )
    references: ClassVar[Mapping[str, str]] = {"ProGIP": WORKS["ProGIP"]}

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The flags of both failures, and what they are made of."""
        return flags(
            "originally_correct",
            "class_changed",
            "verdict_changed",
            "classification_failure",
            "detection_failure",
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Class and score."""
        return ("class", "score")

    @property
    def declared(self) -> Declared:
        """Classification and detection failures."""
        return DECLARED

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """Which of the two failures each run is, if any."""
        golden_score, faulty_score = runs["golden_score"], runs["faulty_score"]
        golden_id = golden_score > context.ood_threshold
        faulty_id = faulty_score > context.ood_threshold
        verdict_changed = ~np.isfinite(faulty_score) | (golden_id != faulty_id)
        class_changed = runs["faulty_class"] != runs["golden_class"]
        known = context.population == "id"
        correct = golden_id & (runs["golden_class"] == runs["label"]) if known else ~golden_id
        correct = correct & np.isfinite(golden_score)
        return {
            "originally_correct": correct,
            "class_changed": class_changed,
            "verdict_changed": verdict_changed,
            "classification_failure": correct & ~verdict_changed & class_changed & known,
            "detection_failure": correct & verdict_changed,
        }
