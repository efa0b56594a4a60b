"""How much of a run lies before its first hit: whether incremental execution is worth it."""

from collections.abc import Collection, Sequence

import numpy as np

from progip.fault_models.base import Hits, Site

#: multiply-accumulates of each pass in those of a forward pass
WORK = {"first_forward": 1.0, "backward": 1.8, "second_forward": 1.0}


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
    order = np.arange(len(sites)) if fault_pass != "backward" else np.arange(len(sites))[::-1]
    first = np.full(runs, len(sites))
    np.minimum.at(first, hits.row, order[hits.site])
    work = {name: amount for name, amount in WORK.items() if name in passes}
    names = list(work)
    before = sum(work[name] for name in names[: names.index(fault_pass)])
    share = (before + work[fault_pass] * first / len(sites)) / sum(work.values())
    share[first == len(sites)] = 1.0
    return float(share.mean())
