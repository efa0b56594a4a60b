"""Accuracy against error rate: the figures of Amarnath et al. (ML Safety workshop, 2022)."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import Campaign, by_group
from progip.analysis.error_rates import CURVE, rate_table
from progip.analysis.estimates import in_order
from progip.analysis.manifests import USUAL
from progip.records import EVERY_PASS
from progip.report.figures import style
from progip.report.figures.base import Figure, in_words
from progip.report.sections.error_rates import curve_title

TITLE = "Accuracy against error rate"
TITLE_WIDTH = 52  # characters of a line above half a page
CAPTION = (
    "Share of inferences with the right class against the probability that a neuron is hit in one "
    "inference (in memory: that a bit is faulty), with 95 % intervals over fault maps; the dotted "
    "lines are the accuracies without faults, the protection in place. Higher is better."
)
NUMBERS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_n", "clean_accuracy")


def rates(campaign: Campaign) -> list[Figure]:
    """One panel per network and kind of fault; nothing where no fault is at a rate above 0."""
    data = rate_table(campaign.folders)
    if data.empty or not (data["accuracy"].notna() & (data["rate"] > 0)).any():
        return []
    data = data.loc[data["accuracy"].notna(), [*CURVE, "protection", "rate", *NUMBERS]]
    source = "figures.error_rates(campaign)"
    return [Figure("rates", TITLE, CAPTION, _alt(data), data, draw, source)]


def _alt(data: pd.DataFrame) -> str:
    said = []
    for curve, group in by_group(data, CURVE):
        worst = group[group["rate"] == group["rate"].max()]
        found = "; ".join(
            f"{row['protection']} {in_words(*(row[name] for name in NUMBERS[:4]))}"
            for _, row in worst.iterrows()
        )
        title = curve_title(dict(zip(CURVE, curve, strict=True)))
        said.append(f"{title}: at {worst['rate'].iloc[0]:g} {found}.")
    return f"Curves, one per protection. {' '.join(said)}"


def _panel(data: pd.DataFrame) -> tuple[str, ...]:
    """What a panel is drawn for: its curves differ in protection, or else in number format."""
    several = data["protection"].nunique() > 1
    return tuple(name for name in CURVE if several or name != "number_format")


def draw(data: pd.DataFrame) -> Drawing:
    """Panels of curves on a logarithmic scale of rates."""
    shared = _panel(data)
    data = data.assign(curve=data["protection" if "number_format" in shared else "number_format"])
    curves = list(by_group(data, shared))
    columns = min(2, len(curves))
    drawing, axes = style.panels(-(-len(curves) // columns), columns, 2.9, sharey=True)
    looks = style.looks({*data["curve"]})
    for panel, (curve, group) in zip(axes.flat, curves, strict=False):
        for name in in_order("protection", group["curve"].unique()):
            part = group[(group["curve"] == name) & (group["rate"] > 0)]
            part, look = part.sort_values("rate"), looks[name]
            gaps = [
                100 * (part["accuracy"] - part["accuracy_low"]),
                100 * (part["accuracy_high"] - part["accuracy"]),
            ]
            panel.errorbar(
                part["rate"], 100 * part["accuracy"], yerr=gaps, label=name,
                color=look.color, marker=look.marker, ls=look.line, elinewidth=0.7, capsize=2,
            )  # fmt: skip
            words = [
                f"{name} at {row['rate']:g}: {in_words(*(row[n] for n in NUMBERS[:4]))} right"
                for _, row in part.iterrows()
            ]
            style.mark(panel, part["rate"], 100 * part["accuracy"], words)
            panel.axhline(100 * part["clean_accuracy"].iloc[0], color=look.color, lw=0.6, ls=":")
        about = dict(zip(shared, curve, strict=True))
        title = curve_title({"number_format": USUAL["number_format"], **about})
        panel.set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", fontsize=8)
        panel.set_xscale("log")
        panel.set_ylim(-2, 103)
        stays = about["fault_pass"] == EVERY_PASS
        what = "of each bit in memory" if stays else "of each neuron and inference"
        panel.set_xlabel(f"error rate, {what}")
    for panel in axes.flat[len(curves) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy, %")
    style.legend_below(drawing, axes[0, 0], 4)
    return drawing
