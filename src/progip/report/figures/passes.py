"""Failures and residual failures by pass and protection (source: results across all passes)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.estimates import UNPROTECTED, in_order, pool, summarise, with_unprotected
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words, readable
from progip.report.formats import inside

TITLE = "Failures left in each pass"
CAPTION = (
    "Failures that each protection leaves, in per cent of {base}, with 95 % "
    "intervals; logarithmic scale. An open marker with a line down to the axis stands at the upper "
    "limit of a cell without any failure left. N: NaN-dominant, more than 96 % of the failures of "
    "that pass are not finite."
)


def passes(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Share of runs that fail and are left, by OOD method, pass, protection."""
    declared = campaign.declared
    cells = with_unprotected(campaign.cells, campaign.kinds)
    here = cells[(cells[list(SETTING)] == list(setting)).all(axis=1)]
    by = ["ood_method", "fault_pass", "protection"]
    summary = summarise(pool(here), by, campaign.interval, campaign.kinds)
    names = ["ood_method", "fault_pass", "protection", "unfinished", "nan_dominant"]
    parts = []
    for event in declared.events:
        rate = f"{event.name}_rate"
        part = summary[
            [*names, f"{event.name}_left", rate, f"{rate}_low", f"{rate}_high", f"{rate}_n"]
        ]
        part = part.set_axis([*names, "left", "estimate", "low", "high", "n"], axis=1)
        part.insert(3, "kind", event.name)
        part.insert(4, "title", inside(event.title))
        parts.append(part)
    data = pd.concat(parts, ignore_index=True)
    caption = CAPTION.format(base=inside(declared.base_title))
    return [Figure("passes", TITLE, caption, _alt(data), data, draw, called("passes", setting))]


def _alt(data: pd.DataFrame) -> str:
    """The largest rate without protection, and what each protection leaves of it."""
    bare = data[(data["protection"] == UNPROTECTED) & data["estimate"].notna()]
    if bare.empty:
        return "No run is done yet."
    worst = bare.sort_values("estimate").iloc[-1]
    where = ["ood_method", "fault_pass", "kind"]
    same = data[(data[where] == worst[where]).all(axis=1)]
    said = [
        f"{row['protection']} {in_words(row['estimate'], row['low'], row['high'], row['n'])}"
        for _, row in same.iterrows()
    ]
    return (
        f"Points with error bars. Most failures: {worst['title']} under "
        f"{worst['ood_method']} after faults in the {readable(worst['fault_pass'])} pass; "
        f"left there: {'; '.join(said)}."
    )


def draw(data: pd.DataFrame) -> Drawing:
    """One row per OOD method, one column per kind of failure."""
    methods = in_order("ood_method", data["ood_method"].unique())
    titles = dict(zip(data["kind"], data["title"], strict=True))
    kinds = list(titles)
    drawing, axes = style.panels(len(methods), len(kinds), 2.3, sharey=True)
    shown = data[["low", "high", "estimate"]].where(data[["low", "high"]].notna().all(axis=1))
    usual = [*shown["estimate"], *shown["high"].where(shown["estimate"] == 0)]
    for row, method in enumerate(methods):
        for column, kind in enumerate(kinds):
            part = data[(data["ood_method"] == method) & (data["kind"] == kind)]
            panel = axes[row, column]
            _panel(panel, part, usual)
            panel.set_title(f"{method}: {titles[kind]}", loc="left")
        axes[row, 0].set_ylabel("left, %")
    style.legend_below(drawing, axes[0, 0], 5)
    return drawing


def _panel(panel: Axes, data: pd.DataFrame, usual: list[float]) -> None:
    bottom = style.log_percent(panel, usual)
    names = in_order("fault_pass", data["fault_pass"].unique())
    looks = style.looks(data["protection"].unique())
    step = 0.7 / len(looks)
    for number, (protection, look) in enumerate(looks.items()):
        part = data[data["protection"] == protection]
        place = part["fault_pass"].map(names.index) + (number - (len(looks) - 1) / 2) * step
        known = (part["estimate"] > 0).to_numpy()
        some, none = part[known], part[~known & part["n"].gt(0).to_numpy()]
        panel.errorbar(
            place[known], 100 * some["estimate"],
            yerr=100 * abs(some[["low", "high"]].sub(some["estimate"], axis=0)).to_numpy().T,
            fmt=look.marker, color=look.color, capsize=2.5, elinewidth=1, label=protection,
        )  # fmt: skip
        panel.vlines(
            place[none.index], bottom, 100 * none["high"], color=look.color, lw=0.8, ls=":"
        )
        panel.plot(
            place[none.index], 100 * none["high"], look.marker, color=look.color, mfc="white"
        )
        for rows, at in ((some, "estimate"), (none, "high")):
            words = [
                f"{row['ood_method']}, {readable(row['fault_pass'])}, {row['title']}, "
                f"{protection}: {in_words(*row[['estimate', 'low', 'high', 'n']])} left"
                for _, row in rows.iterrows()
            ]
            style.mark(panel, place[rows.index], 100 * rows[at], words)
    dominant = set(data.loc[data["nan_dominant"].astype(bool), "fault_pass"])
    labels = [readable(name) + (" N" if name in dominant else "") for name in names]
    panel.set_xticks(range(len(names)), labels)
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.grid(axis="x", visible=False)
