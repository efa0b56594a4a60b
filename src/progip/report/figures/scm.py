"""Safety-critical shares of errors without and with faults (TensorFI+: its three SCM figures)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import Campaign
from progip.analysis.scm_shares import FAULT_FREE, scm_shares
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, in_words

TITLE = "Safety-critical misclassification, without and with faults"
CAPTION = (
    "Share of safety-critical (SCM) among the errors of each network: misclassifications of the "
    "fault-free network, and SDCs after faults in images of each condition. 95 % intervals, with "
    "faults by bootstrap over images. Below each point: SCMs / errors."
)


def scm(campaign: Campaign) -> list[Figure | Absent]:
    """One panel per dataset: networks side by side, a series for each kind of error."""
    if campaign.declared.name != "scm":
        return []
    data = scm_shares(campaign)
    data = data[data["n"] > 0].reset_index(drop=True) if len(data) else data
    if data.empty:
        return [Absent("scm", TITLE, "no run is done yet")]
    return [Figure("scm", TITLE, CAPTION, _alt(data), data, draw, "figures.scm(campaign)[0]")]


def _alt(data: pd.DataFrame) -> str:
    said = [
        f"{row['network']}, {row['what']}: {100 * row['share']:.1f} % ({row['scm']:,} of "
        f"{row['n']:,})"
        for _, row in data.iterrows()
    ]
    return f"Points with error bars. {'; '.join(said)}."


def draw(data: pd.DataFrame) -> Drawing:
    """Networks along the axis; one marker for each kind of error."""
    datasets = list(dict.fromkeys(data["dataset"]))
    kinds = sorted(dict.fromkeys(data["what"]), key=lambda what: (what != FAULT_FREE, what))
    looks = dict(zip(kinds, _LOOKS, strict=False))
    drawing, axes = style.panels(len(datasets), 1, 2.3)
    for number, dataset in enumerate(datasets):
        panel, part = axes[number, 0], data[data["dataset"] == dataset]
        places = {network: place for place, network in enumerate(dict.fromkeys(part["network"]))}
        for order, kind in enumerate(kinds):
            rows = part[part["what"] == kind]
            if rows.empty:
                continue
            x = rows["network"].map(places) + 0.16 * (order - (len(kinds) - 1) / 2)
            ends = abs(rows[["low", "high"]].sub(rows["share"], axis=0)).to_numpy().T
            look = looks.get(kind, _LOOKS[-1])
            panel.errorbar(
                x, 100 * rows["share"], yerr=100 * ends, fmt=look.marker, color=look.color,
                capsize=2, elinewidth=0.9, label=kind,
            )  # fmt: skip
            words = [
                f"{row['network']}, {kind}: {in_words(*row[['share', 'low', 'high', 'n']])}"
                for _, row in rows.iterrows()
            ]
            style.mark(panel, x, 100 * rows["share"], words)
            for place, (_, row) in zip(x, rows.iterrows(), strict=True):
                text = f"{row['scm']:,} / {row['n']:,}"
                panel.annotate(
                    text, (place, -1), ha="center", va="top", fontsize=5.5, rotation=30,
                    annotation_clip=False,
                )  # fmt: skip
        panel.set_xticks(list(places.values()), list(places))
        panel.tick_params(axis="x", pad=18)
        panel.set_title(dataset, loc="left")
        panel.set_ylabel("SCM, % of errors")
        panel.set_ylim(0, min(100, np.nanmax(100 * part["high"]) * 1.1 + 1))
        panel.set_xlim(-0.6, len(places) - 0.4)
    style.legend_below(drawing, axes, 3)
    return drawing


_LOOKS = (
    style.Look(style.BLACK, "o", "-"),
    style.Look(style.BLUE, "s", "-"),
    style.Look(style.VERMILION, "^", "-"),
    style.Look(style.GREEN, "D", "-"),
    style.Look(style.PURPLE, "v", "-"),
    style.Look(style.ORANGE, "P", "-"),
)
