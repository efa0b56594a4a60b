"""Images that the fault-free network takes for another class: dangerous ones, or the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from progip.conditions.base import Condition, Golden
from progip.described import WORKS
from progip.errors import ProgipError
from progip.outcomes.groups import Groups


@dataclass(kw_only=True)
class SafetyCritical(Condition):
    """ID images whose fault-free misclassification is safety-critical, or is not (TensorFI+).

    Attributes:
        groups, critical: as of ``outcome=scm``.
        safe: choose the misclassified images that are not safety-critical instead.
    """

    sentence: ClassVar[str] = (
        "Faults are drawn for such images alone as the fault-free network misclassifies, in a "
        "safety-critical way or another, by the name of the condition [TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    populations: ClassVar[tuple[str, ...]] = ("id",)
    needs: ClassVar[tuple[str, ...]] = ("class",)

    groups: str | None = None
    critical: str = "A"
    safe: bool = False

    @cached_property
    def table(self) -> Groups:
        """The groups. Raises ProgipError for a file that cannot be read, or names no such one."""
        if self.groups is None:
            raise ProgipError(
                f"condition '{self.name}' needs a file of class groups: groups=FILE.csv"
            )
        return Groups.read(self.groups, self.critical)

    def content(self) -> dict[str, str]:
        """What the file says."""
        return {"groups_sha256": self.table.digest}

    def check(self, classes: int) -> None:
        """The file must name every class once."""
        self.table.check(classes)

    def holds(self, golden: Golden) -> np.ndarray:
        wrong = golden["class"] != golden["label"]
        critical = self.table.critical_change(golden["label"], golden["class"])
        return wrong & (~critical if self.safe else critical)
