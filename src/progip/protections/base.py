"""What a detection-only protection is: a function of observations, never of the execution.

Because it changes nothing, any number of protections judge the same executed faults.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from progip.described import Described
from progip.errors import ProgipError
from progip.records import POPULATIONS

#: columns a protection may look at, named as in golden rows, of n executions each.
Evidence = Mapping[str, np.ndarray]

#: those that every detector shows; probes produce more
EVIDENCE = (
    "grad_max",
    "score",
    "nonfinite_logits",
    "nonfinite_gradient",
    "nonfinite_score",
    "range_excess_first",
    "range_excess_second",
)


LARGEST = float(np.finfo(np.float64).max)


class Judgement(NamedTuple):
    """What a protection said of n executions.

    Attributes:
        alarm: (n,) bool.
        stage: (n,) str; which check raised the alarm first, "" where there is none.
    """

    alarm: np.ndarray
    stage: np.ndarray


class Limit(NamedTuple):
    """A check: ``column`` of the evidence is fine from ``low`` to ``high``; NaN never is.

    Finite limits, as by default, leave infinity outside, too.
    """

    stage: str
    column: str
    low: float = -LARGEST
    high: float = LARGEST


@dataclass(kw_only=True)
class Protection(Described, ABC):
    """One protection; the dataclass fields of a subclass are the options of its YAML file.

    Class attributes:
        watches: the columns of evidence that ``judge`` looks at; a deployed detector gathers no
            other. Default those of every detector, range checks included. The OOD method or a
            probe must produce them (``progip.probes.needs``).
        measures: the columns of ``measured``; none by default.
    """

    name: str

    watches: ClassVar[tuple[str, ...]] = EVIDENCE
    measures: ClassVar[tuple[pa.Field, ...]] = ()

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        """The populations whose calibration images ``calibrate`` sees; by default ID and OOD."""
        return POPULATIONS

    @abstractmethod
    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        """Thresholds from fault-free executions of the calibration images (``calibrated_on``).

        Args:
            gradient_vanishes: of the OOD method (see ``OODMethod``).
        """

    @abstractmethod
    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        """Raise alarms. NaN and infinity are never fine."""

    def measured(self, evidence: Evidence) -> dict[str, np.ndarray]:
        """What its rows say beside the alarm: the columns ``measures``, (n,) each."""
        return {}

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...] | None:
        """All of ``judge``, where that is a comparison with limits, in the order of the checks.

        A deployed detector then compares without NumPy, whose calls would cost most of the check
        on small networks. None (the default) makes it call ``judge``.
        """
        return None

    def least_margins(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """For options that widen a limit: the least value at which each execution raises no alarm.

        An execution passes a check exactly if the option is at least this number, so the
        trade-off between detection and false alarms follows for every value at once. Options that
        this leaves out (all of them by default) are not moved in the report's figures.

        Args:
            evidence: of n executions.
            clean: what the protection was calibrated on.
            thresholds: what ``calibrate`` gave; only which limits there are is looked at.

        Returns:
            option: (n,) float64, infinite where no value will do.
        """
        return {}

    def suspicion(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> np.ndarray | None:
        """One number by which the protection would order executions, the likeliest faults last.

        Moving a limit on it gives every pair of detection and false alarms that the protection can
        reach while its limits move together. By default the largest of ``least_margins``; None for
        a protection without any.

        Args:
            evidence: of n executions, with what ``measured`` gave of them.
            clean, thresholds: as of ``least_margins``.

        Returns:
            (n,) float64, infinite where an alarm is raised whatever the limits are.
        """
        margins = self.least_margins(evidence, clean, thresholds)
        return np.max(list(margins.values()), axis=0) if margins else None


def passing(value: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """``value``, or infinity where what it was computed from is not finite."""
    return np.where(finite & ~np.isnan(value), value, np.inf)


def protection_from(options: Mapping[str, Any]) -> Protection:
    """The protection that a resolved configuration describes, ``_target_`` naming its class.

    Raises:
        ProgipError: the class is not there, or takes other options.
    """
    values = dict(options)
    target = str(values.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)(**values)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ProgipError(f"protection {values.get('name')}: {target}: {error}") from error
    if not isinstance(made, Protection):
        raise ProgipError(f"protection {values.get('name')}: {target} is not a Protection")
    return made


def first_alarm(checks: list[tuple[str, np.ndarray]]) -> Judgement:
    """Combine (stage, alarm) checks, in the order in which they run."""
    alarm = checks[0][1]
    for _, raised in checks[1:]:
        alarm = alarm | raised
    stage = np.empty(len(alarm), dtype=object)
    stage.fill("")
    if np.count_nonzero(alarm):
        for name, raised in reversed(checks):  # the first check writes last
            stage[raised] = name
    return Judgement(alarm, stage)


def outside(limits: tuple[Limit, ...], evidence: Evidence) -> Judgement:
    """Alarms where a value lies outside its limits, NaN and infinity among them."""
    checks = []
    for stage, column, low, high in limits:
        values = evidence[column].astype(np.float64)
        checks.append((stage, ~((values >= low) & (values <= high))))
    return first_alarm(checks)
