"""What outcomes of classified images share: which runs count, and when the class is another."""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.errors import ProgipError
from progip.outcomes.base import Outcome, Runs
from progip.outcomes.declared import Event
from progip.records import NO_CLASS

#: which runs count -> title, and clause for sentences
AMONG = {
    "all": ("Runs counted", "runs"),
    "correct": ("Originally correct runs", "runs that were right without their fault"),
    "misclassified": (
        "Originally misclassified runs",
        "runs that were wrong without their fault",
    ),
}


@dataclass(kw_only=True)
class Classified(Outcome, ABC):
    """An outcome of ID images that compares faulty classes with golden ones.

    Attributes:
        among: runs that the rates are of: ``all``, or those of images that the network without
            faults classifies right (``correct``) or wrong (``misclassified``).
    """

    populations: ClassVar[tuple[str, ...]] = ("id",)

    among: str = "all"

    def __post_init__(self) -> None:
        if self.among not in AMONG:
            raise ProgipError(
                f"outcome '{self.name}': among={self.among!r} is not one of {', '.join(AMONG)}"
            )

    def compared(self, runs: Runs) -> dict[str, np.ndarray]:
        """The columns ``originally_correct``, ``class_changed`` and ``counted``.

        Logits that hold a NaN have no class, so a run with such logits has another class.
        """
        correct = runs["golden_class"] == runs["label"]
        counted = {"all": np.ones_like(correct), "correct": correct, "misclassified": ~correct}
        return {
            "originally_correct": correct,
            "class_changed": runs["faulty_class"] != runs["golden_class"],
            "counted": counted[self.among],
        }

    def sdc(self, name: str = "sdc", failure: bool = True) -> Event:
        """The event that the class is another, for ``Declared.events``."""
        return Event(
            name=name,
            flag="sdc",
            base="counted",
            title="Silent data corruptions (SDC)",
            clause="take another class",
            short="SDC",
            failure=failure,
            nonfinite="nonfinite_logits",
        )

    def invalid(self) -> Event:
        """The event that there is no class at all, for ``Declared.events``."""
        return Event(
            name="invalid",
            flag="invalid_class",
            base="counted",
            title="SDCs without a class (NaN)",
            clause="have no class at all",
            short="NaN",
            failure=False,
            nonfinite="nonfinite_logits",
        )


def without_class(runs: Runs) -> np.ndarray:
    """(n,) whether the faulty logits hold a NaN."""
    found: np.ndarray = runs["faulty_class"] == NO_CLASS
    return found
