"""One look for all figures: told apart by colour-blind readers, in grey and on paper.

Colours of Okabe and Ito (Color Universal Design, 2008); every series also has a marker and a line
style of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from progip.analysis.estimates import in_order
from progip.passes import is_backward
from progip.records import EVERY_PASS

WIDTH = 7.2  # inches: a text column, and a phone held upright can still be scrolled through it
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip


class Look(NamedTuple):
    """How one series is drawn."""

    color: str
    marker: str
    line: Any


#: ends the names of published figures of a protection
PUBLISHED = ", publ."
#: protections that the project has; others take the rest in turn
_KNOWN = {
    "none": Look(BLACK, "o", "-"),
    "progip": Look(BLUE, "s", "--"),
    f"progip{PUBLISHED}": Look(BLACK, "", (0, (6, 2))),
    f"ranger{PUBLISHED}": Look(BLACK, "", (0, (1, 2))),
    "progip_both": Look(SKY, "D", "-."),
    "ranger": Look(VERMILION, "^", ":"),
    "ranger_clip": Look(VERMILION, "v", "-."),
    "ranger_published": Look(ORANGE, "^", ":"),
    "ranger_zero": Look(PURPLE, "P", (0, (3, 1, 1, 1))),
    "gradient_statistics": Look(GREEN, "s", (0, (5, 1))),
    "open_set": Look(GREEN, "v", "-"),
    "open_set_energy": Look(GREEN, "<", "--"),
    "open_set_msp": Look(GREEN, ">", ":"),
    "open_set_distance": Look(ORANGE, "h", "-"),
    "open_set_openmax": Look(ORANGE, "p", "--"),
    "open_set_detector": Look(BLACK, "x", ":"),
    "facer_like": Look(PURPLE, "P", "-"),
    "facer_like_ood": Look(PURPLE, "*", "--"),
    "facer_like_three": Look(PURPLE, "X", ":"),
}
_OTHERS = (
    Look(GREEN, "v", (0, (5, 1))),
    Look(PURPLE, "P", (0, (3, 1, 1, 1))),
    Look(ORANGE, "X", (0, (1, 1))),
    Look(SKY, "*", (0, (5, 2, 1, 2))),
    Look(BLUE, "D", "-."),
    Look(VERMILION, "^", "--"),
    Look(BLACK, "o", "-"),
    Look(YELLOW, "s", ":"),
)


def looks(names: Iterable[str], axis: str = "protection") -> dict[str, Look]:
    """A look for each name, in the order of tables; the same name looks alike in all figures."""
    ordered = in_order(axis, names)
    unknown = [name for name in ordered if name not in _KNOWN]
    taken = {_KNOWN[name].color for name in ordered if name in _KNOWN}
    free = [look for look in _OTHERS if look.color not in taken] or _OTHERS
    spare = {name: free[i % len(free)] for i, name in enumerate(unknown)}
    return {name: _KNOWN.get(name) or spare[name] for name in ordered}


PASS_LOOKS = {
    "first_forward": Look(BLUE, "o", "-"),
    "backward": Look(ORANGE, "s", "--"),
    "second_forward": Look(GREEN, "^", ":"),
    EVERY_PASS: Look(BLACK, "D", "-"),
}


def pass_look(name: str) -> Look:
    """Of a pass; those of steps in between look like their kind, thinner dashes."""
    if name in PASS_LOOKS:
        return PASS_LOOKS[name]
    return Look(VERMILION, "v", "-.") if is_backward(name) else Look(SKY, "X", (0, (5, 1)))


POPULATION_LOOKS = {"id": Look(BLUE, "o", "-"), "ood": Look(VERMILION, "s", "--")}


def false_alarm_scale(panel: Axes) -> None:
    """Per cent detected against per cent of false alarms, logarithmic above 0.1 %."""
    panel.set_xscale("symlog", linthresh=0.1, linscale=0.4)
    panel.set_xlim(-0.01, 105)
    panel.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    panel.set_ylim(-2, 103)


def percent_off(row: pd.Series, name: str) -> list[list[float]]:
    """How far the ends `name`_low and _high lie from `name`, in per cent, for error bars."""
    return [
        [100 * (row[name] - row[f"{name}_low"])],
        [100 * (row[f"{name}_high"] - row[name])],
    ]


def mark(panel: Axes, x: Iterable[float], y: Iterable[float], words: Iterable[str]) -> None:
    """Say what the page tells of these points (data coordinates) when one points at them."""
    kept = panel.figure.__dict__.setdefault("marks", [])
    kept += [(panel, float(a), float(b), text) for a, b, text in zip(x, y, words, strict=True)]


def placed(drawing: Drawing) -> Iterator[tuple[float, float, str]]:
    """The marks of a drawing that was laid out: x, y from the top in points, words."""
    width, height = drawing.get_size_inches()
    for panel, x, y, text in drawing.__dict__.get("marks", []):
        if not (np.isfinite(x) and np.isfinite(y)):
            continue
        across, up = panel.transData.transform((x, y)) / drawing.dpi
        if 0 <= across <= width and 0 <= up <= height:
            yield round(72 * float(across), 1), round(72 * float(height - up), 1), text


def panels(rows: int, columns: int, height: float, **options: Any) -> tuple[Drawing, np.ndarray]:
    """A drawing of WIDTH with rows x columns axes [rows, columns], each row `height` inches."""
    drawing = Drawing(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    axes = drawing.subplots(rows, columns, squeeze=False, **options)
    return drawing, axes


def legend_below(drawing: Drawing, axes: Axes | np.ndarray, columns: int = 4) -> None:
    """The legend of one of the axes, or of several together, below all of them."""
    found: dict[str, Any] = {}
    for panel in np.ravel(np.array(axes, dtype=object)):
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        drawing.legend([*found.values()], [*found], loc="outside lower center", ncols=columns)


def log_percent(axes: Axes, values: Sequence[float] | pd.Series, which: str = "y") -> float:
    """A logarithmic axis in per cent that fits these fractions; returns its lowest value."""
    numbers = np.asarray(values, dtype=float)
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    low = float(positive.min()) if len(positive) else 1e-4
    high = float(positive.max()) if len(positive) else 1.0
    bottom = 100 * low / 2
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(bottom, min(100 * high * 2, 130))
    formatter = mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}")
    getattr(axes, f"{which}axis").set_major_formatter(formatter)
    if np.log10(min(100 * high * 2, 130) / bottom) < 1.5:  # hardly a power of ten inside
        getattr(axes, f"{which}axis").set_minor_formatter(sparse(formatter))
    else:
        getattr(axes, f"{which}axis").set_minor_locator(mpl.ticker.NullLocator())
    return float(bottom)


def sparse(formatter: mpl.ticker.FuncFormatter) -> mpl.ticker.FuncFormatter:
    """Labels of a logarithmic axis at 2 and 5 of each decade only."""

    def text(value: float, place: int | None) -> str:
        leading = value / 10 ** np.floor(np.log10(value) + 1e-9)
        return formatter(value, place) if round(leading) in (2, 5) else ""

    return mpl.ticker.FuncFormatter(text)


def log_count(axes: Axes) -> None:
    """A logarithmic horizontal axis of counts."""
    axes.set_xscale("log")
    formatter = mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_formatter(formatter)
    low, high = axes.get_xlim()
    narrow = np.log10(high / low) < 1.8
    axes.xaxis.set_minor_formatter(sparse(formatter) if narrow else mpl.ticker.NullFormatter())
