"""Students of a search: accuracy against robust accuracy."""

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.report.figures import style
from progip.report.figures.base import Figure

SAMPLED, DEAR = "random students", "random, above the limit"
FRONT, FOUND = "predicted front", "found, measured"
COLUMNS = [
    "kind",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "robust",
    "robust_low",
    "robust_high",
]


def pareto_figure(data: pd.DataFrame) -> Figure:
    """Accuracy against robust accuracy of students.

    Args:
        data: COLUMNS, shares in [0, 1]; limits are NaN but for those of FOUND.
    """
    caption = (
        "Accuracy against accuracy under attack: random students and the predicted front on the "
        "images of the search, the students that were cut out on the evaluation images, with "
        "95 % intervals. Up and to the right is better."
    )
    best = data[data["kind"] == FOUND]["robust"].max()
    counts = data["kind"].value_counts()
    alt = (
        f"{counts.get(SAMPLED, 0)} random students in the limit, {counts[FOUND]} found; the best "
        f"found keeps {100 * best:.1f} % under attack."
    )
    return Figure("pareto", "Students of the search", caption, alt, data, draw, "")


def draw(data: pd.DataFrame) -> Drawing:
    """Draws the data of ``pareto_figure``."""
    drawing = Drawing(figsize=(style.WIDTH * 0.65, 3.2), layout="constrained")
    axes = drawing.subplots()
    percent = data.assign(**{name: 100 * data[name] for name in COLUMNS[1:]})
    parts = {kind: percent[percent["kind"] == kind] for kind in (SAMPLED, DEAR, FRONT, FOUND)}
    part = parts[DEAR]
    axes.scatter(part["accuracy"], part["robust"], s=9, color="#c8c8c8", label=DEAR)
    part = parts[SAMPLED]
    axes.scatter(part["accuracy"], part["robust"], s=14, color=style.BLUE, label=SAMPLED)
    part = parts[FRONT].sort_values("accuracy")
    axes.plot(part["accuracy"], part["robust"], "--", color=style.BLACK, label=FRONT)
    part = parts[FOUND]
    across, up = (
        [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]]
        for name in ("accuracy", "robust")
    )
    axes.errorbar(
        part["accuracy"], part["robust"], xerr=across, yerr=up, fmt="D", color=style.VERMILION,
        label=FOUND, elinewidth=0.8,
    )  # fmt: skip
    axes.set_xlabel("accuracy, %")
    axes.set_ylabel("accuracy under attack, %")
    axes.legend()
    return drawing
