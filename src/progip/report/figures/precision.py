"""How the intervals narrowed as runs were added."""

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED, in_order, of_protection, with_unprotected
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words
from progip.report.formats import inside
from progip.statistics import Moments

TITLE = "Interval width against runs"
CAPTION = (
    "Half-width of the 95 % interval in percentage points after so many runs of all cells "
    "together, for the failures that each protection leaves (of {base}) and for "
    "the failures it detects (of all failures). Thin grey: proportional to one over the square "
    "root of the runs. Four times the runs halve an interval."
)
SHOWN = {
    "failure_rate": "failures left",
    "overall_accuracy": "failures detected",
}


def precision(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Rates and their intervals over the first 100, 200, 500 ... runs of each cell."""
    kinds = campaign.kinds
    cells = with_unprotected(campaign.cells, kinds)
    here = cells[(cells[list(SETTING)] == list(setting)).all(axis=1) & (cells["done"] > 0)]
    stopped = any(folder.manifest.get("stopping") for folder in campaign.folders)
    rows = []
    for protection in in_order("protection", here["protection"].unique()):
        looks = list(here.loc[here["protection"] == protection, "milestones"])
        for size in sorted({rows for cell in looks for rows, _ in cell}):
            first = [_at(cell, size, stopped) for cell in looks]
            moments = reduce(add, first)
            for name in SHOWN:
                if protection == UNPROTECTED and of_protection(name):
                    continue
                events, base = kinds.rates[name]
                rate = moments.rate(kinds.masks[events], kinds.masks[base])
                if rate.n:
                    rows.append(
                        {
                            "rate": name,
                            "protection": protection,
                            "runs_a_cell": size,
                            "runs": int(moments.rows.sum()),
                            "estimate": rate.estimate,
                            "low": rate.low,
                            "high": rate.high,
                            "half_width": (rate.high - rate.low) / 2,
                            "n": rate.n,
                        }
                    )
    if not rows:
        return [Absent("precision", TITLE, "no run is done yet")]
    data = pd.DataFrame(rows)
    caption = CAPTION.format(base=inside(campaign.declared.base_title))
    return [
        Figure("precision", TITLE, caption, _alt(data), data, draw, called("precision", setting))
    ]


def _at(looks: list[tuple[int, Moments]], size: int, alike: bool) -> Moments:
    """The sums of a cell's first `size` runs, or of as many as it has before that.

    Args:
        looks: numbers of runs with their sums.
        size: number of runs.
        alike: a cell that a rule stopped earlier counts as much as the others.
    """
    rows, moments = next((look for look in reversed(looks) if look[0] <= size), looks[0])
    return moments.scaled(size / rows) if alike else moments


def _alt(data: pd.DataFrame) -> str:
    said = []
    for (name, protection), group in by_group(data, ["rate", "protection"]):
        first, last = group.iloc[0], group.iloc[-1]
        said.append(
            f"{SHOWN[name]}, {protection}: {100 * first['half_width']:.2g} points after "
            f"{first['runs']:,} runs, {100 * last['half_width']:.2g} after {last['runs']:,}"
        )
    return f"Falling lines. {'; '.join(said)}."


def draw(data: pd.DataFrame) -> Drawing:
    """One panel per rate, one line per protection."""
    drawing, axes = style.panels(1, len(SHOWN), 2.6, sharex=True)
    looks = style.looks(data["protection"].unique())
    for panel, (rate, title) in zip(axes[0], SHOWN.items(), strict=True):
        here = data[data["rate"] == rate]
        panel.set_title(title, loc="left")
        panel.set_xlabel("runs, all cells")
        panel.set_ylabel("± percentage points")
        if here.empty:
            continue
        style.log_percent(panel, here["half_width"])
        for protection, look in looks.items():
            line = here[here["protection"] == protection].sort_values("runs")
            panel.plot(
                line["runs"], 100 * line["half_width"], color=look.color, ls=look.line,
                marker=look.marker, label=protection,
            )  # fmt: skip
            words = [
                f"{title}, {protection}, {row['runs']:,} runs: ± {100 * row['half_width']:.2g} "
                f"points around {in_words(*row[['estimate', 'low', 'high', 'n']])}"
                for _, row in line.iterrows()
            ]
            style.mark(panel, line["runs"], 100 * line["half_width"], words)
        last = here.sort_values("runs").iloc[-1]
        runs = np.array([here["runs"].min(), here["runs"].max()])
        panel.plot(runs, 100 * last["half_width"] * np.sqrt(last["runs"] / runs), color="#999999",
                   lw=0.7, zorder=1)  # fmt: skip
        style.log_count(panel)
    style.legend_below(drawing, axes[0, 0])
    return drawing
