"""What change is tiny: learnt from the runs of a pilot, for weighted termination.

Any limits give unbiased rates (``analysis.tally``); good ones end many runs and hardly any that
would fail. A limit is chosen by the product of what it makes of time and variance: of runs that go
on with probability p, those that would fail multiply their part of the variance by 1 / p.
"""

import numpy as np
from numpy.typing import NDArray

#: candidates: the largest limits, of the value hit and of logits, times these
MOST_AT_FAULT, MOST_AT_LOGITS = 0.1, 0.01
STEPS = 10.0 ** (-0.5 * np.arange(12))
#: what a run that is ended saves, in mean runs: at its fault, and at the logits (ResNet-20)
SAVED = (0.7, 0.5)
#: share of the images, those whose score is nearest to the OOD threshold, of which no run is ended
SPARED = 0.05
#: failures as if seen before, and those of them that a limit ends: pilots see few
PRIOR_FAILURES, PRIOR_ENDED = 10.0, 0.1


def spared(distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """The images whose verdict even a tiny change may turn; distance: (images,) of their scores."""
    order = np.argsort(distance, kind="stable")
    return order[: int(np.ceil(SPARED * len(order)))]


def limits(
    failed: NDArray[np.bool_],
    at_fault: NDArray[np.float32],
    at_logits: NDArray[np.float32],
    weight: NDArray[np.float64],
    probability: float,
) -> tuple[float, float]:
    """Changes up to which a run is ended, at its fault and at the logits; 0 where none should be.

    Args:
        failed: (runs,) of the pilot.
        at_fault, at_logits: (runs,) their changes, as ``records.ROULETTE`` has them.
        weight: (runs,) of the sampling plan.
        probability: with which a run goes on.
    """
    rest = np.ones(len(failed), dtype=bool)
    found = []
    for change, most, saved in zip(
        (at_fault, at_logits), (MOST_AT_FAULT, MOST_AT_LOGITS), SAVED, strict=True
    ):
        best, limit = 1.0, 0.0
        for candidate in most * STEPS:
            tiny = rest & (change > 0) & (change <= candidate)
            variance = (weight * failed) ** 2
            scale = variance.sum() / max(failed.sum(), 1)
            lost = float(variance[tiny].sum()) / scale if scale else 0.0
            share = (lost + PRIOR_ENDED) / (failed.sum() + PRIOR_FAILURES)
            spread = 1 + share * (1 / probability - 1)
            time = 1 - saved * float(tiny.mean()) * (1 - probability)
            if spread * time < best:
                best, limit = spread * time, float(candidate)
        found.append(limit)
        rest &= ~((change > 0) & (change <= limit))
    return found[0], found[1]
