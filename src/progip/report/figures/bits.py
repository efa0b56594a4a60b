"""Failure rate by flipped bit (source: faults on higher bits lead to critical faults)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import Campaign
from progip.analysis.estimates import in_order
from progip.analysis.site_rates import executions_of, site_rates
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words, readable
from progip.report.figures.vulnerability import NOTHING, fields_in_words
from progip.report.formats import inside

TITLE = "Failures by flipped bit"
CAPTION = (
    "Share of {base} that fail before any protection, by the flipped bit, with "
    "95 % intervals: all layers, models, ID and OOD inputs together. {fields}."
)


def bits(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Failure rates before protection by OOD method, pass and bit."""
    if not any(len(e.sites) for e in executions_of(campaign, setting)):
        return [Absent("bits", TITLE, NOTHING)]
    data = site_rates(campaign, setting, ["ood_method", "fault_pass", "bit"])
    data = data.sort_values(["ood_method", "fault_pass", "bit"], ignore_index=True)
    caption = CAPTION.format(
        fields=fields_in_words(campaign), base=inside(campaign.declared.base_title)
    )
    return [Figure("bits", TITLE, caption, _alt(data), data, draw, called("bits", setting))]


def _alt(data: pd.DataFrame) -> str:
    said = []
    for name in in_order("fault_pass", data["fault_pass"].unique()):
        part = data[(data["fault_pass"] == name) & data["estimate"].notna()]
        if part["failures"].any():
            row = part.sort_values("estimate").iloc[-1]
            words = in_words(row["estimate"], row["low"], row["high"], row["correct"])
            said.append(f"{readable(name)}: bit {row['bit']} under {row['ood_method']}, {words}")
    return f"Points with error bars. Highest rates: {'; '.join(said) or 'no run failed'}."


def draw(data: pd.DataFrame) -> Drawing:
    """One panel per OOD method, one series per pass."""
    methods = in_order("ood_method", data["ood_method"].unique())
    drawing, axes = style.panels(len(methods), 1, 2.1, sharex=True, sharey=True)
    names = in_order("fault_pass", data["fault_pass"].unique())
    for row, method in enumerate(methods):
        panel = axes[row, 0]
        for number, name in enumerate(names):
            part = data[(data["ood_method"] == method) & (data["fault_pass"] == name)]
            look = style.pass_look(name)
            panel.errorbar(
                part["bit"] + 0.22 * (number - (len(names) - 1) / 2), 100 * part["estimate"],
                yerr=100 * abs(part[["low", "high"]].sub(part["estimate"], axis=0)).to_numpy().T,
                fmt=look.marker, color=look.color, capsize=1.5, elinewidth=0.8, ms=3.2,
                label=readable(name),
            )  # fmt: skip
            style.mark(
                panel, part["bit"], 100 * part["estimate"],
                [f"{method}, {readable(name)}, bit {row['bit']}: "
                 + in_words(*row[["estimate", "low", "high", "correct"]])
                 for _, row in part.iterrows()],
            )  # fmt: skip
        panel.set_title(method, loc="left")
        panel.set_ylabel("failures, %")
    axes[-1, 0].set_ylim(bottom=0)
    axes[-1, 0].set_xlabel("flipped bit")
    axes[-1, 0].set_xticks(np.arange(0, max(data["bit"].max(), 31) + 1, 2))
    style.legend_below(drawing, axes[0, 0])
    return drawing
