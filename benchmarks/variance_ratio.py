"""How many times fewer runs a planned campaign needs than a uniform one, from rows of both.

    python benchmarks/variance_ratio.py UNIFORM_CELL [PLANNED_CELL]

Cells are folders with a manifest, of the same cell. With both: the ratio of effective rows a run,
as measured. With the uniform one alone: what Neyman allocation would gain, learnt from its first
runs and judged on the others, so that the pilot's luck does not flatter it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from progip.campaign.precision import rate_of
from progip.campaign.tally import tally_shards
from progip.statistics.allocation import neyman, smoothed_rates, spread
from progip.statistics.intervals import Rate

QUANTITIES = ("failure_rate_before", "failure_rate", "overall_accuracy")
PILOT = 5000
DEFENSIVE = 0.3


def rates_of(folder: Path) -> tuple[int, dict[str, Rate]]:
    """Runs of a cell, and its rates."""
    manifest = json.loads((folder / "manifest.json").read_text())
    moments = tally_shards(sorted(folder.glob("part-*.parquet")), manifest).moments()
    return int(moments.rows.sum()), {name: rate_of(moments, name) for name in QUANTITIES}


def measured(uniform: Path, planned: Path) -> None:
    """Print both cells' rates and the ratio of their effective rows a run."""
    (n, plain), (m, better) = rates_of(uniform), rates_of(planned)
    for name in QUANTITIES:
        a, b = plain[name], better[name]
        gain = b.effective_n / m / (a.effective_n / n)
        print(
            f"{name}: uniform {a.estimate:.5f} [{a.low:.5f}, {a.high:.5f}] of {n:,} runs "
            f"({a.events} of {a.n}); planned {b.estimate:.5f} [{b.low:.5f}, {b.high:.5f}] of {m:,} "
            f"({b.events} of {b.n}); {gain:.1f} times fewer runs for the same interval"
        )


def predicted(folder: Path) -> None:
    """Print the gain that an allocation learnt from the first PILOT uniform rows would have had."""
    names = [
        "run_id", "layer", "bit", "originally_correct", "classification_failure",
        "detection_failure", "alarm", "golden_grad_max", "faulty_grad_max", "golden_score",
        "faulty_score", "range_excess_first", "range_excess_second",
    ]  # fmt: skip
    rows = pq.read_table(sorted(folder.glob("part-*.parquet")), columns=names).to_pandas()
    correct = rows["originally_correct"].to_numpy()
    failed = (rows["classification_failure"] | rows["detection_failure"]).to_numpy()
    missed = failed & ~rows["alarm"].to_numpy()
    clean = np.ones(len(rows), dtype=bool)
    for name in ("grad_max", "score"):
        golden = rows[f"golden_{name}"]
        clean &= rows[f"faulty_{name}"].between(golden.min(), golden.max()).to_numpy()
    inside = (rows[["range_excess_first", "range_excess_second"]] <= 0).all(axis=1).to_numpy()
    layer = np.unique(rows["layer"], return_inverse=True)[1]
    sizes = (32, layer.max() + 1, 2)
    stratum = np.ravel_multi_index((rows["bit"].to_numpy(), layer, correct.astype(int)), sizes)
    levels = np.indices(sizes).reshape(3, -1)
    count = levels.shape[1]
    part = np.where(levels[2] == 1, correct.mean(), 1 - correct.mean())
    shares = part / (sizes[0] * sizes[1])
    wider = np.stack([np.digitize(levels[0], (23, 31)), 0 * levels[1], levels[2]])
    early = rows["run_id"].to_numpy() < PILOT
    seen, k, quiet = (
        np.bincount(stratum[early], what[early], minlength=count)
        for what in (np.ones(len(rows)), failed, failed & (clean | inside))
    )
    p, q = (smoothed_rates(seen, events, levels, wider) for events in (k, quiet))
    spreads = spread(shares, p, np.minimum(p, q), "detection_accuracy")
    weights = shares / neyman(shares, spreads, DEFENSIVE)
    late, where = ~early, stratum[~early]
    recall = 1 - missed.sum() / failed.sum()
    for name, contrast in (
        ("failure_rate_before", failed - failed.sum() / correct.sum() * correct),
        ("failure_rate", missed - missed.sum() / correct.sum() * correct),
        ("overall_accuracy", failed * (~missed - recall)),
    ):
        z = contrast[late].astype(float)
        n, s, ss = (np.bincount(where, w, minlength=count) for w in (np.ones(len(z)), z, z * z))
        squares = (s * s - ss) / np.maximum(n * (n - 1), 1)  # unbiased for the squared mean
        variance = (ss * weights).sum() / len(z) - (shares * weights * squares).sum()
        print(f"{name}: {np.mean(z**2) / variance:.1f} times fewer runs, predicted")


if __name__ == "__main__":
    folders = [Path(name) for name in sys.argv[1:]]
    if len(folders) == 2:
        measured(*folders)
    else:
        predicted(*folders)
