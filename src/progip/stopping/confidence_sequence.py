"""Stopping by a confidence sequence: valid at every run count at once, however often one looks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from progip.statistics.sequential import mixture_interval
from progip.stopping.base import Estimate, Look, PrecisionRule


@dataclass(kw_only=True)
class ConfidenceSequence(PrecisionRule):
    """Interval of the beta-binomial mixture (Robbins, Annals of Mathematical Statistics 41, 1970).

    Exact for unweighted rows; weighted ones count by their effective size. It pays for looks that
    are not taken: expect about three times the runs of alpha spending for the same width.
    """

    sentence: ClassVar[str] = (
        "A cell stops when its confidence sequence is narrow enough, which holds at all looks "
        "at once [Robbins]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Robbins": "Robbins: Statistical methods related to the law of the iterated logarithm. "
        "Annals of Mathematical Statistics 41, 1970, 1397-1409.",
    }

    def judge(self, estimates: list[tuple[int, Estimate]]) -> Look | None:
        look = None
        for runs, estimate in estimates:
            rate = estimate(self.confidence)
            share = rate.estimate if rate.n else 0.0
            low, high = mixture_interval(
                share * rate.effective_n, rate.effective_n, self.confidence
            )
            rate = replace(rate, low=low, high=high)
            half = self.width(rate)
            look = Look(runs, rate, half, half <= self.margin and self.ready(rate))
            if look.enough:
                return look
        return look
