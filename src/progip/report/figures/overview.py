"""What each protection leaves, at a glance: the figure at the head of the page."""

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.estimates import ALL, UNPROTECTED, in_order, pool, summarise, with_unprotected
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words
from progip.report.formats import inside

TITLE = "Failures left, at a glance"
CAPTION = (
    "Failures that each protection leaves, in per cent of {base}, with 95 % intervals: all passes, "
    "models, ID and OOD inputs together. Open markers: no failure left, at the upper limit."
)


def overview(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Share of runs that fail and are left, by OOD method and protection."""
    cells = with_unprotected(campaign.cells, campaign.kinds)
    here = cells[(cells[list(SETTING)] == list(setting)).all(axis=1)]
    summary = summarise(
        pool(here, model=ALL), ["ood_method", "protection"], campaign.interval, campaign.kinds
    )
    names = ["failure_rate", "failure_rate_low", "failure_rate_high", "failure_rate_n"]
    data = summary[["ood_method", "protection", "failures_left", *names]].set_axis(
        ["ood_method", "protection", "left", "estimate", "low", "high", "n"], axis=1
    )
    data = data[data["n"] > 0].reset_index(drop=True)
    if data.empty:
        return [Absent("overview", TITLE, "no run that can fail is done yet")]
    caption = CAPTION.format(base=inside(campaign.declared.base_title))
    source = called("overview", setting)
    return [Figure("overview", TITLE, caption, _alt(data), data, draw, source)]


def _alt(data: pd.DataFrame) -> str:
    said = [f"{r['ood_method']}, {r['protection']}: {_words(r)}" for _, r in data.iterrows()]
    return f"Points with error bars, one a protection. {'; '.join(said)}."


def _words(row: pd.Series) -> str:
    return in_words(row["estimate"], row["low"], row["high"], row["n"])


def draw(data: pd.DataFrame) -> Drawing:
    """One panel per OOD method, one line per protection."""
    methods = in_order("ood_method", data["ood_method"].unique())
    names = in_order("protection", data["protection"].unique())
    columns = min(2, len(methods))
    rows = -(-len(methods) // columns)
    height = 0.55 + 0.24 * len(names)
    drawing, axes = style.panels(rows, columns, height, sharex=True, sharey=True)
    looks = style.looks(names)
    for panel, method in zip(axes.flat, methods, strict=False):
        part = data[data["ood_method"] == method].set_index("protection")
        for place, name in enumerate(names):
            if name not in part.index:
                continue
            row, look = part.loc[name], looks[name]
            x = 100 * (row["estimate"] if row["left"] else row["high"])
            ends = 100 * abs(row[["low", "high"]].to_numpy(float) - row["estimate"])
            panel.errorbar(
                [100 * row["estimate"]], [place], xerr=ends.reshape(2, 1), fmt="none",
                ecolor=look.color, elinewidth=1.4, capsize=3,
            )  # fmt: skip
            panel.plot([x], [place], look.marker, color=look.color, ms=6,
                       mfc=look.color if row["left"] else "white")  # fmt: skip
            style.mark(panel, [x], [place], [f"{method}, {name}: {_words(row)} left"])
        panel.set_title(method if method != UNPROTECTED else "no OOD detector", loc="left")
        panel.grid(axis="y", visible=False)
        panel.set_xlim(left=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for panel in axes.flat[len(methods) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("failures left, %")
    return drawing
