"""Stopping by alpha spending: interim looks cost a little confidence, and it is accounted for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from scipy.stats import norm

from progip.statistics.sequential import boundary, obrien_fleming
from progip.stopping.base import Estimate, Look, PrecisionRule

#: information is never called more complete than this before the look that stops
MOST_INFORMATION = 0.9


@dataclass(kw_only=True)
class AlphaSpending(PrecisionRule):
    """Interval at look k at the critical value that spending leaves it.

    Information is the inverse variance of the estimate, in parts of what the target needs. Each
    look spends by the O'Brien-Fleming-type function of Lan and DeMets (Biometrika 70, 1983); the
    critical value follows from the joint law of all looks (`statistics.sequential.boundary`). A
    look first asks whether the interval would be narrow enough if all that is left were spent now;
    then it stops. So little is spent before that a stopped campaign's interval is hardly wider
    than one without looks.
    """

    sentence: ClassVar[str] = (
        "A cell stops at the look at which its interval is narrow enough, looks being paid "
        "for by alpha spending [LanDeMets]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "LanDeMets": "Lan, DeMets: Discrete sequential boundaries for clinical trials. "
        "Biometrika 70, 1983, 659-663.",
    }

    def judge(self, estimates: list[tuple[int, Estimate]]) -> Look | None:
        alpha = 1 - self.confidence
        plain = float(norm.isf(alpha / 2))
        information: list[float] = []
        spent: list[float] = []
        look = None
        for number, (runs, estimate) in enumerate(estimates):
            rate = estimate(self.confidence)
            half = self.width(rate)
            # what the interval of this look says of the precision, at the plain critical value
            size = (self.margin / half) ** 2 if half > 0 else 1.0
            size = max(size, information[-1] * 1.0001 if information else 1e-12)
            z = boundary([*information, size], spent, alpha - sum(spent))
            final = estimate(float(1 - 2 * norm.sf(z)))
            last = number == len(estimates) - 1
            enough = self.width(final) <= self.margin and self.ready(final)
            look = Look(runs, final, self.width(final), enough)
            if enough or last:
                return look
            part = min(size * (plain / z) ** 2, MOST_INFORMATION)
            due = obrien_fleming(part, alpha) - sum(spent)
            spent.append(max(due, 0.0))
            information.append(size)
        return look
