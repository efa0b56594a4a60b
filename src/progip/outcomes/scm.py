"""Safety-critical misclassification (SCM): the fault changed the class into a dangerous other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.described import WORKS
from progip.errors import ProgipError
from progip.outcomes.base import Context, Runs, flags
from progip.outcomes.classified import AMONG, Classified, without_class
from progip.outcomes.declared import Declared, Event
from progip.outcomes.groups import Groups

REFERENCES = ("golden", "truth")


@dataclass(kw_only=True)
class SCM(Classified):
    """SDCs from a critical class to one of another group (TensorFI+, Laskar et al.).

    From class a to class b is safety-critical where a's group is in the critical supergroup and
    b's group is another one, in the critical supergroup or not: a pedestrian taken for a tree, or
    for a car. A tree taken for a pedestrian is not. A run without a class (NaN) is critical where
    a is.

    Attributes:
        groups: CSV file of classes, see ``progip.outcomes.groups``.
        critical: the supergroup whose classes must not be taken for others.
        reference: class a: that of the network without faults (``golden``, as in the source), or
            the label (``truth``).
    """

    sentence: ClassVar[str] = (
        "An SDC is safety-critical (SCM) if it leads from a class of the critical supergroup to a "
        "class of another group [TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    groups: str | None = None
    critical: str = "A"
    reference: str = "golden"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference not in REFERENCES:
            raise ProgipError(
                f"outcome '{self.name}': reference={self.reference!r} is not one of "
                f"{', '.join(REFERENCES)}"
            )

    @cached_property
    def table(self) -> Groups:
        """The groups. Raises ProgipError for a file that cannot be read, or names no such one."""
        if self.groups is None:
            raise ProgipError(
                f"outcome '{self.name}' needs a file of class groups: groups=FILE.csv"
            )
        return Groups.read(self.groups, self.critical)

    def content(self) -> dict[str, str]:
        """What the file says."""
        return {"groups_sha256": self.table.digest}

    def check(self, classes: int) -> None:
        """The file must name every class once."""
        self.table.check(classes)

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """Flags of the run, and whether the fault-free network makes such an error itself."""
        common = ("originally_correct", "class_changed", "counted", "sdc", "invalid_class")
        return flags(*common, "scm", "golden_scm")

    @property
    def needs(self) -> tuple[str, ...]:
        """The class."""
        return ("class",)

    @property
    def declared(self) -> Declared:
        """SCMs among all runs and among SDCs; SDCs; those without a class."""
        joint = Event(
            name="scm",
            flag="scm",
            base="counted",
            title="Safety-critical misclassifications (SCM)",
            clause="are taken for a class of another group, and that is critical",
            short="SCM",
            nonfinite="nonfinite_logits",
        )
        share = Event(
            name="scm_of_sdc",
            flag="scm",
            base="sdc",
            title="SCMs among SDCs",
            clause="are safety-critical SDCs",
            short="SCM of SDC",
            failure=False,
            nonfinite="nonfinite_logits",
        )
        return Declared(
            name=self.name,
            base="counted",
            base_title=AMONG[self.among][0],
            base_clause=AMONG[self.among][1],
            events=(joint, share, self.sdc(failure=False), self.invalid()),
        )

    def clean(self, golden: Runs) -> dict[str, int]:
        """Images, those misclassified, and the safety-critical ones among them."""
        label, found = golden["label"], golden["class"]
        wrong = found != label
        critical = wrong & self.table.critical_change(label, found)
        return {
            "images": len(label),
            "misclassified": int(wrong.sum()),
            "scm": int(critical.sum()),
        }

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """Whether each run is an SDC, and a critical one."""
        found, label = self.compared(runs), runs["label"]
        golden, faulty = runs["golden_class"], runs["faulty_class"]
        before = golden if self.reference == "golden" else label
        sdc = found["counted"] & found["class_changed"]
        found |= {
            "sdc": sdc,
            "invalid_class": sdc & without_class(runs),
            "scm": sdc & self.table.critical_change(before, faulty),
            "golden_scm": (golden != label) & self.table.critical_change(label, golden),
        }
        return found
