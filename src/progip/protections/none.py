"""No protection: the baseline every other one is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.protections.base import Evidence, Judgement, Limit, Protection


@dataclass(kw_only=True)
class NoProtection(Protection):
    """Never raises an alarm."""

    watches: ClassVar[tuple[str, ...]] = ()

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        count = len(next(iter(evidence.values())))
        return Judgement(np.zeros(count, dtype=bool), np.full(count, "", dtype=object))

    def limits(self, thresholds: Mapping[str, float]) -> tuple[Limit, ...]:
        return ()
