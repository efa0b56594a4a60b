"""How many times fewer runs a planned campaign needs than a uniform one for the same intervals.

    python benchmarks/variance_ratio.py UNIFORM_CAMPAIGN PLANNED_CAMPAIGN

Both are folders of campaigns over the same cells; cells that only one has are left out. For each
protection and quantity: the interval of both, pooled over the cells, and the ratio of effective
rows a run, the pilot's runs counted. Then the same ratio cell by cell, with the events each rests
on. Where rates were equal in both, it is the ratio of variances at the same number of runs.
"""

import sys
from functools import reduce
from operator import add

import pandas as pd
from tabulate import tabulate

from progip.analysis.campaign import Campaign
from progip.analysis.precision import rate_of
from progip.statistics import Moments, Rate

CELL = ["model", "ood_method", "fault_pass", "population"]
LEAST_EVENTS = 20
QUANTITIES = {
    "failure_rate_before": "failures, % of originally correct",
    "failure_rate": "left by the protection",
    "classification_accuracy": "classification failures detected",
    "detection_accuracy": "ID/OOD failures detected",
    "overall_accuracy": "failures detected",
}


def gain(uniform: Moments, planned: Moments, quantity: str) -> tuple[Rate, Rate, float]:
    """Both rates, and the ratio of their effective rows a run.

    NaN where the planned rows hold fewer than LEAST_EVENTS with or without the event: their
    variance is hardly known then. A uniform sample's effective rows are its rows, whatever they
    hold.
    """
    pair = [rate_of(moments, quantity) for moments in (uniform, planned)]
    few = min(pair[1].events, pair[1].n - pair[1].events) < LEAST_EVENTS
    if not pair[0].n or few:
        return pair[0], pair[1], float("nan")
    a, b = (r.effective_n / m.rows.sum() for r, m in zip(pair, (uniform, planned), strict=True))
    return pair[0], pair[1], float(b / a)


def interval(rate: Rate) -> str:
    """Estimate and limits in per cent, and the rows that are events."""
    low, middle, high = (f"{100 * value:.3f}" for value in (rate.low, rate.estimate, rate.high))
    return f"{middle} [{low}, {high}], {rate.events:,} of {rate.n:,}"


def main(uniform: str, planned: str) -> None:
    """Print both tables as Markdown."""
    frames = [Campaign.load(folder).cells for folder in (uniform, planned)]
    both = frames[0].merge(frames[1], on=[*CELL, "protection"], suffixes=("_u", "_p"))
    pooled, single = [], []
    for name, group in both[both["protection"] != "none"].groupby("protection"):
        sums = [reduce(add, group[f"moments_{side}"]) for side in "up"]
        runs = " / ".join(f"{int(m.rows.sum()):,}" for m in sums)
        for quantity, label in QUANTITIES.items():
            a, b, ratio = gain(sums[0], sums[1], quantity)
            width = (b.high - b.low) / (a.high - a.low)
            pooled.append([name, label, interval(a), interval(b), f"{width:.2f}", f"{ratio:.1f}"])
        for _, cell in group.iterrows():
            row = [" ".join(cell[CELL]), name]
            for quantity in QUANTITIES:
                a, b, ratio = gain(cell["moments_u"], cell["moments_p"], quantity)
                row.append(f"{ratio:.1f} ({a.events:,} / {b.events:,})")
            single.append(row)
        print(f"{name}: {len(group)} cells, {runs} runs")
    head = ["protection", "quantity", "uniform", "planned", "width", "times fewer runs"]
    print("\n" + tabulate(pd.DataFrame(pooled), head, "github", showindex=False))
    head = ["cell", "protection", *QUANTITIES.values()]
    print("\n" + tabulate(pd.DataFrame(single), head, "github", showindex=False))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
