"""What a detection-only protection is: a function of observations, never of the execution.

Because it changes nothing, any number of protections judge the same executed faults.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from progip.described import Described
from progip.errors import ProgipError

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
            other. Default all of them, range checks included. An OOD method must compute them
            (``check_evidence``).
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


def check_evidence(
    protection: str, watches: Collection[str], method: str, computes: Collection[str]
) -> None:
    """Refuse a protection that looks at what the OOD method does not compute.

    A second forward pass that is never made cannot leave its range: a protection of ranges then
    watches the first one alone.

    Args:
        protection, method: their names.
        watches: ``Protection.watches``.
        computes: ``OODMethod.evidence``.

    Raises:
        ProgipError: naming the columns.
    """
    unknown = sorted(set(watches) - set(EVIDENCE))
    if unknown:
        raise ProgipError(
            f"protection '{protection}' watches {', '.join(unknown)}; there are "
            f"{', '.join(EVIDENCE)}"
        )
    missing = [name for name in watches if name not in computes]
    if missing and (set(missing) != {"range_excess_second"} or len(watches) == 1):
        raise ProgipError(
            f"protection '{protection}' looks at {', '.join(missing)}, which ood_method "
            f"'{method}' does not compute (it computes {', '.join(computes)}); choose another "
            "ood_method or protection. A protection of one's own declares what it looks at in "
            "the class attribute watches, a method its passes"
        )


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
