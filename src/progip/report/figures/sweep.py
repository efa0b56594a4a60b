"""Accuracy at a demanded lead of the best class over the next: the delta sweep (source 003)."""

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import Campaign
from progip.analysis.manifests import USUAL
from progip.analysis.observing import ExecutedRuns
from progip.analysis.site_sums import TOP2DIFF
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, in_words
from progip.statistics import rate

#: conditions whose images are all wrong without a fault: there is no accuracy to lose
WRONG = ("misclassified", "scm", "non_scm")
TITLE = "Accuracy at a demanded lead of the best class"
CAPTION = (
    "Share of images that are classified right with a Top2Diff of at least so many points: of the "
    "fault-free network over its evaluation images, and of the runs with a fault in the images "
    "they hit. Bands: 95 % intervals (Wilson's; runs taken as independent)."
)


def sweep(campaign: Campaign) -> list[Figure | Absent]:
    """One curve per network, fault-free and with faults; nothing where Top2Diff was not asked."""
    if not any(m.column == "faulty_top2diff" for m in campaign.declared.measures):
        return []
    rows = [row for execution in campaign.executions for row in _rows(execution)]
    if not rows:
        return [Absent("sweep", TITLE, "no run is done yet")]
    data = pd.DataFrame(rows).drop_duplicates(["model", "dataset", "kind", "delta"])
    data = data.reset_index(drop=True)
    return [Figure("sweep", TITLE, CAPTION, _alt(data), data, draw, "figures.sweep(campaign)[0]")]


def _rows(execution: ExecutedRuns) -> list[dict]:
    names = {name: execution.names[name] for name in ("model", "dataset")}
    if execution.names["number_format"] != USUAL["number_format"]:
        names["model"] += f" {execution.names['number_format']}"
    condition = execution.names["condition"]
    found = []
    clean = execution.clean
    if clean is not None and "top2diff" in clean:
        here = clean[(clean["split"] == "evaluation") & (clean["population"] == "id")]
        right = here["class"] == here["label"]
        for delta in TOP2DIFF:
            k = int((right & (here["top2diff"] >= delta)).sum())
            found.append({**names, "kind": "fault-free", **_point(int(delta), k, len(here))})
    if execution.sweep is not None and execution.sweep[-1] and condition not in WRONG:
        kind = "with a fault" if condition == "all" else f"with a fault in {condition} images"
        for delta, k in zip(TOP2DIFF, execution.sweep, strict=False):
            found.append(
                {**names, "kind": kind, **_point(int(delta), int(k), int(execution.sweep[-1]))}
            )
    return found


def _point(delta: int, k: int, n: int) -> dict:
    share = rate(k, n)
    return {
        "delta": delta,
        "k": k,
        "n": n,
        "accuracy": share.estimate,
        "low": share.low,
        "high": share.high,
    }


def _alt(data: pd.DataFrame) -> str:
    said = []
    for (model, kind), part in data.groupby(["model", "kind"], sort=False):
        ends = part.set_index("delta")["accuracy"]
        said.append(f"{model} {kind}: {100 * ends[0]:.1f} % at 0, {100 * ends[40]:.1f} % at 40")
    return f"Falling curves. {'; '.join(said)}."


def draw(data: pd.DataFrame) -> Drawing:
    """One panel per dataset; a colour for each network, a line style for each kind."""
    datasets = list(dict.fromkeys(data["dataset"]))
    drawing, axes = style.panels(len(datasets), 1, 2.4)
    lines = dict(zip(dict.fromkeys(data["kind"]), ("-", "--", ":", "-."), strict=False))
    colours = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY)
    models = {m: colours[i % len(colours)] for i, m in enumerate(dict.fromkeys(data["model"]))}
    for row, dataset in enumerate(datasets):
        panel = axes[row, 0]
        here = data[data["dataset"] == dataset]
        for (model, kind), part in here.groupby(["model", "kind"], sort=False):
            panel.plot(
                part["delta"], 100 * part["accuracy"], lines.get(kind, "-"), color=models[model],
                label=f"{model}, {kind}",
            )  # fmt: skip
            panel.fill_between(
                part["delta"], 100 * part["low"], 100 * part["high"], color=models[model],
                alpha=0.15, linewidth=0,
            )  # fmt: skip
            words = [
                f"{model}, {kind}, lead {row['delta']:g}: "
                f"{in_words(*row[['accuracy', 'low', 'high', 'n']])} right"
                for _, row in part.iterrows()
            ]
            style.mark(panel, part["delta"], 100 * part["accuracy"], words)
        panel.set_title(dataset, loc="left")
        panel.set_ylabel("right, %")
    axes[-1, 0].set_xlabel("demanded Top2Diff, points")
    style.legend_below(drawing, axes, 2)
    return drawing
