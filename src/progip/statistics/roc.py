"""How well scores tell ID from OOD: AUROC, and thresholds at a true-positive rate.

ID is the positive class and higher scores mean more ID (ODIN: Liang, Li, Srikant, ICLR 2018). A
score is accepted as ID when it is strictly above the threshold, so NaN is never accepted: all of
this ranks NaN with minus infinity, below every number. For ID images that is the worst outcome; for
OOD images it is the right verdict, as it would be in use.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Chance that a random ID score ranks above a random OOD score, ties counting half.

    id_scores [n], ood_scores [m]: any floats; infinities and NaN are allowed (see the module).
    Rank-based, so scores crowded into a tiny window, or far out of it, lose nothing. Raises
    ProgipError when either population is empty.

    >>> round(auroc([3, 2, 1], [0, 1]), 4)
    0.9167
    """
    from sklearn.metrics import roc_auc_score  # half a second, which only reports need to wait

    id_, ood = _scores(id_scores, "ID"), _scores(ood_scores, "OOD")
    ranks = rankdata(np.concatenate([id_, ood]), method="dense").astype(np.float64)
    truth = np.repeat([1, 0], [len(id_), len(ood)])
    return float(roc_auc_score(truth, ranks))


def threshold_at_tpr(id_scores: ArrayLike, tpr: float = 0.95) -> float:
    """The largest float64 threshold that at least a fraction `tpr` of the ID scores lies above.

    "Above" is strict, so the answer is the float just below the m-th largest score, m being the
    least count with m / n >= tpr; tied scores stay together, on the accepted side. Keep it in
    float64: single precision would round it back onto the score.

    Raises:
        ProgipError: no scores, a tpr outside (0, 1], or so many NaN or minus-infinite scores that
            no threshold accepts enough.
    """
    if not 0 < tpr <= 1:
        raise ProgipError(f"true-positive rate is {tpr}; give a fraction above 0 and at most 1")
    scores = _scores(id_scores, "ID")
    n = len(scores)
    m = math.ceil(tpr * n)
    if m > 1 and (m - 1) / n >= tpr:  # the product was an ulp too large
        m -= 1
    least = np.sort(scores)[n - m]
    if least == -np.inf:
        usable = int((scores > -np.inf).sum())
        raise ProgipError(
            f"only {usable} of {n} ID scores are numbers, so no threshold accepts {tpr:.0%} of "
            "them; look for NaN in the weights or the images"
        )
    return math.nextafter(least, -math.inf)


def fpr_at_tpr(id_scores: ArrayLike, ood_scores: ArrayLike, tpr: float = 0.95) -> float:
    """Fraction of the OOD scores above `threshold_at_tpr(id_scores, tpr)`.

    No interpolation and no grid of thresholds. Raises ProgipError as that function does, and when
    there is no OOD score.

    >>> fpr_at_tpr(range(20), [0, 1, 2, 30])
    0.75
    """
    ood = _scores(ood_scores, "OOD")
    return float((ood > threshold_at_tpr(id_scores, tpr)).mean())


def auroc_interval(
    area: float, n_id: int, n_ood: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of an AUROC from the area and the two sample sizes alone.

    Method 5 of Newcombe (Statistics in Medicine 25, 2006, 559-573): the areas A for which the
    measured one lies within t standard errors, with the variance of Hanley and McNeil (Radiology
    143, 1982) at A, A(1-A) [1 + s(1-A)/(2-A) + s A/(1+A)] / (n m), s = (n+m)/2 - 1. It stays in
    [0, 1] and keeps its width at areas of 0 and 1.

    Returns:
        (low, high).

    Raises:
        ProgipError: an area outside [0, 1], an empty population, or a confidence outside (0, 1).

    >>> [round(limit, 4) for limit in auroc_interval(0.95, 100, 100)]
    [0.9073, 0.973]
    """
    if not 0 <= area <= 1:
        raise ProgipError(f"AUROC is {area}; it lies between 0 and 1")
    if n_id < 1 or n_ood < 1:
        raise ProgipError(f"AUROC of {n_id} ID and {n_ood} OOD images; give at least 1 of each")
    t = norm.isf((1 - check_confidence(confidence)) / 2)
    mean = (n_id + n_ood) / 2 - 1

    def excess(a: float) -> float:
        variance = a * (1 - a) * (1 + mean * (1 - a) / (2 - a) + mean * a / (1 + a))
        return (area - a) ** 2 - t * t * variance / (n_id * n_ood)

    # excess is 0 at 0 and 1 themselves, whatever the area: keep a hair away from those roots
    inside = min(max(area, 1e-12), 1 - 1e-12)
    low = brentq(excess, 0, inside, xtol=1e-15) if area > 0 else 0.0
    high = brentq(excess, inside, 1, xtol=1e-15) if area < 1 else 1.0
    return float(low), float(high)


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Scores as float64 [n], NaN put below every number."""
    scores = np.array(values, dtype=np.float64).ravel()
    if not len(scores):
        raise ProgipError(f"there is no {name} score; the {name} population is empty")
    scores[np.isnan(scores)] = -np.inf
    return scores
