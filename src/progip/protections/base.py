"""What a detection-only protection is: a function of observations, never of the execution.

Because it changes nothing, any number of protections judge the same executed faults.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: columns a protection may look at, named as in ``records.GOLDEN``, of n executions each.
Evidence = Mapping[str, np.ndarray]


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
    """One protection; the dataclass fields of a subclass are the options of its YAML file."""

    name: str

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
    alarm = np.zeros_like(checks[0][1], dtype=bool)
    stage = np.full(len(alarm), "", dtype=object)
    for name, raised in checks:
        stage[raised & ~alarm] = name
        alarm = alarm | raised
    return Judgement(alarm, stage)
