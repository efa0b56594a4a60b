"""By how much a fault moves the loss, and how far apart the two best classes are (GoldenEye)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.described import WORKS
from progip.errors import ProgipError
from progip.outcomes.base import Context, Runs, flags
from progip.outcomes.classified import AMONG, Classified
from progip.outcomes.declared import Declared, Event, Measure


@dataclass(kw_only=True)
class DeltaLoss(Classified):
    """DeltaLoss, mismatches and Top2Diff: the measures of GoldenEye (Mahmoud et al., DSN 2022).

    DeltaLoss of a run is |CE(faulty) - CE(golden)|, the cross-entropies with the label. The source
    leaves runs out whose loss is NaN, both of DeltaLoss and of the mismatches, which hides the
    worst faults: here they are mismatches, counted apart, and in the capped mean they count as the
    cap.

    The source injects into images alone that are classified right: ``condition=correct``.

    Attributes:
        cap: the most that one run adds to the capped mean, in nats.
    """

    sentence: ClassVar[str] = (
        "DeltaLoss of a run is the absolute difference of its cross-entropy loss from that of the "
        "fault-free network; a mismatch is a run of another class, one without a class (NaN) among "
        "them [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {"GoldenEye": WORKS["GoldenEye"]}

    cap: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cap < float("inf"):
            raise ProgipError(f"outcome '{self.name}': cap={self.cap}: give nats above 0")

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """Flags, and the change of the loss with and without the cap."""
        common = ("originally_correct", "class_changed", "counted", "mismatch", "nonfinite_loss")
        names = ("delta_loss", "delta_loss_capped")
        return (*flags(*common), *(pa.field(name, pa.float64()) for name in names))

    @property
    def needs(self) -> tuple[str, ...]:
        """Class, loss and Top2Diff."""
        return ("class", "loss", "top2diff")

    @property
    def declared(self) -> Declared:
        """Mismatches, losses that are not finite; DeltaLoss and Top2Diff."""
        return Declared(
            name=self.name,
            base="counted",
            base_title=AMONG[self.among][0],
            base_clause=AMONG[self.among][1],
            events=(
                Event(
                    name="mismatch",
                    flag="mismatch",
                    base="counted",
                    title="Mismatches (another class, or none)",
                    clause="take another class",
                    short="M",
                    nonfinite="nonfinite_logits",
                ),
                Event(
                    name="nonfinite_loss",
                    flag="nonfinite_loss",
                    base="counted",
                    title="Losses that are not finite",
                    clause="have no finite loss",
                    short="not finite",
                    failure=False,
                    nonfinite="nonfinite_logits",
                ),
            ),
            measures=(
                Measure("delta_loss", "delta_loss", "", "counted", "DeltaLoss, finite alone, nats"),
                Measure(
                    "delta_loss_capped",
                    "delta_loss_capped",
                    "",
                    "counted",
                    f"DeltaLoss, capped at {self.cap:g}, nats",
                    by_layer=True,
                ),
                Measure(
                    "top2diff_golden",
                    "golden_top2diff",
                    "",
                    "counted",
                    "Top2Diff without faults, points",
                ),
                Measure(
                    "top2diff_faulty",
                    "faulty_top2diff",
                    "",
                    "counted",
                    "Top2Diff with a fault, points",
                ),
            ),
        )

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """By how much the loss of each run moved, and whether its class is another."""
        found = self.compared(runs)
        with np.errstate(invalid="ignore"):
            change = np.abs(runs["faulty_loss"] - runs["golden_loss"])
        finite = np.isfinite(change)
        found["mismatch"] = found["counted"] & found["class_changed"]
        found["nonfinite_loss"] = found["counted"] & ~finite
        found["delta_loss"] = change
        found["delta_loss_capped"] = np.where(finite, np.minimum(change, self.cap), self.cap)
        return found
