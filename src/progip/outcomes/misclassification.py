"""Silent data corruption (SDC): the fault changed the class, whatever a detector says."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.outcomes.base import Context, Outcome, Runs
from progip.outcomes.declared import Declared, Event, Measure
from progip.records import NO_CLASS

AMONG = ("all", "correct", "misclassified")


@dataclass(kw_only=True)
class Misclassification(Outcome):
    """SDC-1 of ID images: the faulty class is not the golden one (TensorFI+, GoldenEye).

    The ground truth is not used, so a run whose golden class was wrong counts, too, unless
    ``among`` says otherwise. Logits that hold a NaN have no class: such a run is an SDC, and
    counted as ``invalid`` besides.

    Attributes:
        among: runs that the rates are of: ``all``, or those of images that the network without
            faults classifies right (``correct``) or wrong (``misclassified``).
        confidence: report the change of the largest logit, too; needs the probe largest_logit.
    """

    sentence: ClassVar[str] = (
        "A run is a silent data corruption (SDC) if its class is not that of the fault-free "
        "network; logits that hold a NaN have no class."
    )

    columns: ClassVar[tuple[pa.Field, ...]] = tuple(
        pa.field(name, pa.bool_())
        for name in ("originally_correct", "class_changed", "counted", "sdc", "invalid_class")
    )
    populations: ClassVar[tuple[str, ...]] = ("id",)

    among: str = "all"
    confidence: bool = False

    def __post_init__(self) -> None:
        if self.among not in AMONG:
            raise ProgipError(
                f"outcome '{self.name}': among={self.among!r} is not one of {', '.join(AMONG)}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The class, and the largest logit with ``confidence``."""
        return ("class", "largest_logit") if self.confidence else ("class",)

    @property
    def declared(self) -> Declared:
        """SDC, the invalid ones among them, and the mean change of the largest logit."""
        measure = Measure(
            name="logit_change",
            column="faulty_largest_logit",
            minus="golden_largest_logit",
            base="counted",
            title="Change of the largest logit",
        )
        return Declared(
            name=self.name,
            base="counted",
            base_title=_TITLES[self.among],
            base_clause=_CLAUSES[self.among],
            events=(
                Event(
                    name="sdc",
                    flag="sdc",
                    base="counted",
                    title="Silent data corruptions (SDC)",
                    clause="take another class",
                    short="SDC",
                    nonfinite="nonfinite_logits",
                ),
                Event(
                    name="invalid",
                    flag="invalid_class",
                    base="counted",
                    title="SDCs without a class (NaN)",
                    clause="have no class at all",
                    short="NaN",
                    failure=False,
                    nonfinite="nonfinite_logits",
                ),
            ),
            measures=(measure,) if self.confidence else (),
        )

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """Whether each run is an SDC, and whether it counts."""
        golden, faulty = runs["golden_class"], runs["faulty_class"]
        correct = golden == runs["label"]
        counted = {"all": np.ones_like(correct), "correct": correct, "misclassified": ~correct}
        chosen, changed = counted[self.among], faulty != golden
        return {
            "originally_correct": correct,
            "class_changed": changed,
            "counted": chosen,
            "sdc": chosen & changed,
            "invalid_class": chosen & (faulty == NO_CLASS),
        }


_TITLES = {
    "all": "Runs counted",
    "correct": "Originally correct runs",
    "misclassified": "Originally misclassified runs",
}
_CLAUSES = {
    "all": "runs",
    "correct": "runs that were right without their fault",
    "misclassified": "runs that were wrong without their fault",
}
