"""How much of a run lies before its first hit: whether incremental execution is worth it."""

from collections.abc import Collection, Sequence

import numpy as np

from progip.fault_models.base import Hits, Site
from progip.passes import is_backward, place_of

#: multiply-accumulates of a backward pass in those of a forward pass
BACKWARD_WORK = 1.8


def saved_share(
    hits: Hits, runs: int, sites: Sequence[Site], fault_pass: str, passes: Collection[str]
) -> float:
    """The mean share of some runs' work that lies before their first hit.

    Within the pass work is taken as even over the sites; a run without a hit needs none.

    Args:
        hits: of the runs.
        sites: that they name, in the order of a forward pass.
        passes: that the detector makes.
    """
    order = np.arange(len(sites)) if not is_backward(fault_pass) else np.arange(len(sites))[::-1]
    first = np.full(runs, len(sites))
    np.minimum.at(first, hits.row, order[hits.site])
    names = sorted(passes, key=place_of)
    work = {name: BACKWARD_WORK if is_backward(name) else 1.0 for name in names}
    before = sum(work[name] for name in names[: names.index(fault_pass)])
    share = (before + work[fault_pass] * first / len(sites)) / sum(work.values())
    share[first == len(sites)] = 1.0
    return float(share.mean())
