"""Silent data corruption (SDC): the fault changed the class, whatever a detector says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.described import WORKS
from progip.errors import ProgipError
from progip.outcomes.base import Context, Runs, flags
from progip.outcomes.classified import AMONG, Classified, without_class
from progip.outcomes.declared import Declared, Event


@dataclass(kw_only=True)
class SDC(Classified):
    """SDC-1: the faulty class is not the golden one; SDC-5, SDC-10 % and SDC-20 % beside it.

    Li et al. (SC 2017), the definitions that TensorFI, TensorFI+ and others use. The ground truth
    is not used, so a run whose golden class was wrong counts, too, unless ``among`` says otherwise.
    Logits that hold a NaN have no class: such a run is an SDC of every kind, and ``invalid``
    besides.

    Attributes:
        top_five: report SDC-5, too: the faulty class is not among the golden five best; needs the
            probe top_five.
        confidence: report SDC-x % for each x given: the probability of the best class is another
            by more than x % of its fault-free value; needs the probe confidence.
    """

    sentence: ClassVar[str] = (
        "A run is a silent data corruption (SDC) if its class is not that of the fault-free "
        "network [Li]; logits that hold a NaN have no class."
    )
    references: ClassVar[Mapping[str, str]] = {"Li": WORKS["Li"]}

    top_five: bool = False
    confidence: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = self.confidence
        if len(set(shares)) != len(shares) or any(share < 1 for share in shares):
            raise ProgipError(
                f"outcome '{self.name}': confidence={list(shares)}: give per cents from 1 on, each "
                "once, as in [10,20]"
            )

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The flag of every kind."""
        kinds = [event.flag for event in self._more]
        common = ("originally_correct", "class_changed", "counted", "sdc")
        return flags(*common, *kinds, "invalid_class")

    @property
    def needs(self) -> tuple[str, ...]:
        """The class, the best five with ``top_five``, the probability with ``confidence``."""
        more = {"top_five": self.top_five, "confidence": bool(self.confidence)}
        return ("class", *(name for name, wanted in more.items() if wanted))

    @property
    def declared(self) -> Declared:
        """SDC-1, which is the failure; the other kinds; those without a class."""
        return Declared(
            name=self.name,
            base="counted",
            base_title=AMONG[self.among][0],
            base_clause=AMONG[self.among][1],
            events=(self.sdc(), *self._more, self.invalid()),
        )

    @property
    def _more(self) -> list[Event]:
        found = []
        if self.top_five:
            clause = "take a class that is not among the five best without the fault"
            found.append(_event("sdc_5", "SDC-5", "SDC-5 (not among the best five)", clause))
        for share in self.confidence:
            clause = f"change the probability of the best class by more than {share} %"
            title = f"SDC-{share} % (probability of the best class)"
            found.append(_event(f"sdc_{share}_percent", f"SDC-{share} %", title, clause))
        return found

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """Whether each run is an SDC of each kind, and whether it counts."""
        found = self.compared(runs)
        counted, invalid = found["counted"], without_class(runs)
        found["sdc"] = counted & found["class_changed"]
        if self.top_five:
            known = (runs["golden_top_five"] == runs["faulty_class"][:, None]).any(1)
            found["sdc_5"] = counted & (~known | invalid)
        if self.confidence:
            golden, faulty = runs["golden_confidence"], runs["faulty_confidence"]
            with np.errstate(invalid="ignore"):
                change = np.abs(faulty - golden)
            for share in self.confidence:
                inside = change <= share / 100 * golden  # not so for NaN
                found[f"sdc_{share}_percent"] = counted & ~inside
        found["invalid_class"] = counted & invalid
        return found


def _event(name: str, short: str, title: str, clause: str) -> Event:
    return Event(
        name=name,
        flag=name,
        base="counted",
        title=title,
        clause=clause,
        short=short,
        failure=False,
        nonfinite="nonfinite_logits",
    )
