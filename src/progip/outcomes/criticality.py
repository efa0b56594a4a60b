"""What a fault does to the answer: nothing at all, other logits, or another class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.outcomes.base import Context, Outcome, Runs, flags
from progip.outcomes.classified import without_class
from progip.outcomes.declared import Declared, Event


@dataclass(kw_only=True)
class Criticality(Outcome):
    """Critical, non-critical and masked faults (Ruospo et al., DATE 2023; SCI-FI).

    A run is critical if its class is not that of the fault-free network, masked if every logit has
    the same bits, else non-critical; the label plays no part. Logits that hold a NaN have no class:
    critical. Injectors that take PyTorch's argmax of such logits get the class of the first NaN,
    which may be right by chance.

    Attributes:
        nan_is_critical: false: as such injectors do, to be compared with them.
    """

    sentence: ClassVar[str] = (
        "A run is critical if its class is not that of the fault-free network, masked if all of "
        "its logits are equal bit for bit, and non-critical else [Ruospo]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Ruospo": "Ruospo, Gavarini, De Sio, Guerrero, Sterpone, Sonza Reorda, Sanchez, Mariani, "
        "Aribido, Athavale: Assessing convolutional neural networks reliability through "
        "statistical fault injections. DATE 2023. "
        "https://doi.org/10.23919/DATE56975.2023.10136998",
    }

    nan_is_critical: bool = True

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """Flags."""
        return flags("originally_correct", "class_changed", "critical", "masked", "non_critical")

    @property
    def needs(self) -> tuple[str, ...]:
        """Class, the largest logit's place, and the digest of the logits."""
        return ("class", "argmax", "logits_digest")

    @property
    def declared(self) -> Declared:
        """Critical runs are failures; masked and non-critical ones are counted."""
        return Declared(
            name=self.name,
            base="",
            base_title="All runs",
            base_clause="runs",
            events=(
                _event("critical", "Critical runs (another class, or none)", "take another class"),
                _event("masked", "Masked runs (equal logits)", "keep every bit of the logits"),
                _event(
                    "non_critical",
                    "Non-critical runs (other logits, the same class)",
                    "change logits alone",
                ),
            ),
            disjoint=True,
        )

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        golden, faulty = runs["golden_class"], runs["faulty_class"]
        critical = runs["golden_argmax"] != runs["faulty_argmax"]
        if self.nan_is_critical:
            critical = critical | without_class(runs)
        masked = (runs["golden_logits_digest"] == runs["faulty_logits_digest"]) & ~critical
        return {
            "originally_correct": golden == runs["label"],
            "class_changed": golden != faulty,
            "critical": critical,
            "masked": masked,
            "non_critical": ~critical & ~masked,
        }


def _event(name: str, title: str, clause: str) -> Event:
    return Event(
        name=name,
        flag=name,
        base="",
        title=title,
        clause=clause,
        short=name[0].upper(),
        failure=name == "critical",
        nonfinite="nonfinite_logits",
    )
