"""What a detection-only protection is: a function of observations, never of the execution.

Because it changes nothing, any number of protections judge the same executed faults.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

#: columns a protection may look at, named as in ``records.GOLDEN``, of n executions each.
Evidence = Mapping[str, np.ndarray]

#: those columns
EVIDENCE = (
    "grad_max",
    "score",
    "nonfinite_logits",
    "nonfinite_gradient",
    "nonfinite_score",
    "range_excess_first",
    "range_excess_second",
)


class Judgement(NamedTuple):
    """What a protection said of n executions.

    Attributes:
        alarm: (n,) bool.
        stage: (n,) str; which check raised the alarm first, "" where there is none.
    """

    alarm: np.ndarray
    stage: np.ndarray


@dataclass(kw_only=True)
class Protection(ABC):
    """One protection; the dataclass fields of a subclass are the options of its YAML file.

    Class attributes:
        watches: the columns of evidence that ``judge`` looks at; a deployed detector gathers no
            other. Default all of them, range checks included.
    """

    name: str

    watches: ClassVar[tuple[str, ...]] = EVIDENCE

    @abstractmethod
    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        """Thresholds from fault-free executions of the calibration images (ID and OOD).

        Args:
            gradient_vanishes: of the OOD method (see ``OODMethod``).
        """

    @abstractmethod
    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        """Raise alarms. NaN and infinity are never fine."""


def first_alarm(checks: list[tuple[str, np.ndarray]]) -> Judgement:
    """Combine (stage, alarm) checks, in the order in which they run."""
    alarm = checks[0][1]
    for _, raised in checks[1:]:
        alarm = alarm | raised
    stage = np.empty(len(alarm), dtype=object)
    stage.fill("")
    if alarm.any():
        for name, raised in reversed(checks):  # the first check writes last
            stage[raised] = name
    return Judgement(alarm, stage)
