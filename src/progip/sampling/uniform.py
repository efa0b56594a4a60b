"""Faults drawn by the fault model's own law: the plan of most of the literature."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from progip.sampling.base import FaultSpace, Pilot, SamplingPlan


@dataclass(kw_only=True)
class Uniform(SamplingPlan):
    """Every run drawn alike; all weights are 1."""

    sentence: ClassVar[str] = "All runs of a cell are drawn alike, by the law of the fault model."

    def plan(
        self,
        space: FaultSpace,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        p = space
        return p.fault_model.plan(p.sites, len(p.correct), seed, key, start, stop)
