"""Students under faults, on clean and on attacked images: the numbers, a table and a figure."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.error_rates import rate_table
from progip.analysis.manifests import CellFolder
from progip.errors import ProgipError
from progip.report.figures import style
from progip.report.figures.base import Figure

#: names of datasets that `progip attack --images` gives; accuracy on the second is robust accuracy
CLEAN, ATTACKED = "clean", "attacked"
KEYS = ["model", "family", "rate", "dataset", "protection"]
QUANTITIES = ("accuracy", "sdc", "clean_accuracy")
ENDS = ("", "_low", "_high", "_n")
NUMBERS = ("accuracy", "accuracy_low", "accuracy_high", "clean_accuracy")
NO_FAULTS = "without faults"
_FAULTS = {"bit_error_rate": "bits of weights", "one_bit": "layer outputs"}


def numbers(folders: tuple[CellFolder, ...]) -> pd.DataFrame:
    """KEYS, maps, and QUANTITIES with ENDS, as ``rate_table`` has them; shares in [0, 1].

    Raises:
        ProgipError: cells of clean or of attacked images are missing.
    """
    data = rate_table(folders)
    if data.empty or set(data["dataset"]) != {CLEAN, ATTACKED}:
        raise ProgipError(
            "this table needs faults at a rate on two datasets named clean and attacked, as "
            "campaigns/robust_students_weights.yaml has them"
        )
    columns = [*KEYS, "maps", *(f"{name}{end}" for name in QUANTITIES for end in ENDS)]
    order = {name: number for number, name in enumerate(students(data["model"].unique()))}
    return data[columns].sort_values(
        KEYS, key=lambda c: c.map(order) if c.name == "model" else c, ignore_index=True
    )


def students(names: Iterable[str]) -> list[str]:
    """Plain, teacher, largest, those found, smallest, others."""
    places = {"plain": 0, "teacher": 1, "largest": 2, "smallest": 4}
    return sorted(names, key=lambda n: (places.get(n, 3 if n.startswith("found") else 5), n))


def table(data: pd.DataFrame) -> pd.DataFrame:
    """One line a student and fault: accuracy on both kinds of images, and SDC, by protection.

    Args:
        data: of ``numbers``.
    """
    lines = []
    for model in students(data["model"].unique()):
        mine = data[data["model"] == model]
        first = mine.drop_duplicates(["dataset", "protection"])
        lines.append({"student": model, "faults": NO_FAULTS, **_cells(first, "clean_accuracy")})
        for (family, rate), part in mine.groupby(["family", "rate"], sort=True):
            line = {"student": model, "faults": faults(family, rate), **_cells(part, "accuracy")}
            on_clean = part[part["dataset"] == CLEAN]
            lines.append(line | _cells(on_clean, "sdc", "SDC, "))
    return pd.DataFrame(lines).fillna("")


def faults(family: str, rate: float) -> str:
    """Kind and rate in words."""
    return f"{_FAULTS.get(family, family)}, {rate:g}"


def _cells(part: pd.DataFrame, name: str, title: str = "") -> dict[str, str]:
    found = {}
    for _, row in part.sort_values(["dataset", "protection"], ascending=[False, True]).iterrows():
        low, high = 100 * row[f"{name}_low"], 100 * row[f"{name}_high"]
        digits = 2 if name == "sdc" else 1
        words = f"{100 * row[name]:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
        found[f"{title}{row['dataset']}, {row['protection']}"] = words
    return found


def robust_students(data: pd.DataFrame) -> Figure:
    """Accuracy of every student without and under faults, with and without protection."""
    caption = (
        "Share of images with the right class: clean images above, images that were attacked on "
        "the fault-free student below. Crosses: no faults, no protection. Intervals of 95 %: of "
        "bits of weights over fault maps, of layer outputs over rounds of faults."
    )
    worst = data.loc[data["accuracy"].idxmin()]
    alt = (
        f"The lowest accuracy is {100 * worst['accuracy']:.1f} %: {worst['model']}, "
        f"{worst['dataset']} images, {faults(worst['family'], worst['rate'])}, protection "
        f"{worst['protection']}."
    )
    return Figure("robust_students", "Robust students under faults", caption, alt, data, draw, "")


def draw(data: pd.DataFrame) -> Drawing:
    """Draws the data of ``numbers``: a row of panels per kind of images, a column per fault."""
    kinds = list(data.groupby(["family", "rate"], sort=True).groups)
    names, protections = students(data["model"].unique()), sorted(data["protection"].unique())
    drawing, axes = style.panels(2, len(kinds), 2.3, sharey=True)
    looks = style.looks({*protections})
    cells = data.set_index(["dataset", "family", "rate", "protection", "model"])[list(NUMBERS)]
    cells = cells.sort_index()
    middle = (len(protections) - 1) / 2
    for row, dataset in enumerate((CLEAN, ATTACKED)):
        for panel, (family, rate) in zip(axes[row], kinds, strict=True):
            for number, protection in enumerate(protections):
                mine = 100 * cells.loc[(dataset, family, rate, protection)].loc[names]
                places = [place + 0.24 * (number - middle) for place in range(len(names))]
                if number == 0:
                    free = mine["clean_accuracy"]
                    panel.plot(range(len(names)), free, "x", color="#777777", label=NO_FAULTS)
                gaps = [abs(mine[f"accuracy_{end}"] - mine["accuracy"]) for end in ("low", "high")]
                look = looks[protection]
                panel.errorbar(
                    places, mine["accuracy"], yerr=gaps, fmt=look.marker, color=look.color,
                    label=protection, elinewidth=0.8, capsize=2,
                )  # fmt: skip
            panel.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
            panel.set_ylim(-3, 103)
            if row == 0:
                panel.set_title(faults(family, rate), fontsize=8)
        axes[row, 0].set_ylabel(f"{dataset} images,\naccuracy, %")
    style.legend_below(drawing, axes[0, 0], 3)
    return drawing
