"""What a figure is: its numbers, how they are drawn, and what is said of it in words."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from progip.report import formats, layout
from progip.report.figures.style import STYLE, placed
from progip.report.rendering.csvs import replace_file, to_csv

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph in a PDF
FORMATS = ("svg", "pdf", "png")
#: what would make the same figure another file each time it is written
_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Rendered:
    """A figure as files, and what its points say when one points at them.

    Attributes:
        files: by format.
        width: of the drawing in points, as in the SVG.
        height: of it.
        marks: x, y (from the top) in points, and the words.
    """

    files: dict[str, bytes]
    width: float
    height: float
    marks: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: of its files.
        title: above it.
        caption: what it shows and how to read it.
        alt: what a person who cannot see it should know of this one.
        data: every number in it, written as NAME.csv; `draw` takes it, as built or read again from
            that file, and nothing else.
        draw: makes the drawing.
        source: the Python call that gives this.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame], Drawing]
    source: str

    def _style(self) -> dict[Any, Any]:
        return {**STYLE, "svg.hashsalt": self.name}

    def plot(self) -> Drawing:
        """The matplotlib figure; a notebook shows it."""
        with mpl.rc_context(self._style()):
            drawing = self.draw(self.data)
            FigureCanvasAgg(drawing)
        return drawing

    def render(self) -> dict[str, bytes]:
        """The figure in every one of FORMATS, the same bytes each time."""
        return self.rendered().files

    def rendered(self) -> Rendered:
        """The figure in every one of FORMATS, with the places of its marks."""
        rendered = {}
        with mpl.rc_context(self._style()):
            drawing = self.draw(self.data)
            FigureCanvasAgg(drawing)
            drawing.draw_without_rendering()  # places everything, once for all formats
            drawing.set_layout_engine(None)
            for kind in FORMATS:
                sink = BytesIO()
                drawing.savefig(sink, format=kind, metadata=_DATES[kind])
                rendered[kind] = sink.getvalue()
        width, height = 72 * drawing.get_size_inches()
        marks = tuple(placed(drawing))
        return Rendered(rendered, float(width), float(height), marks)

    def write(self, folder: str | Path) -> list[Path]:
        """Write NAME.svg, .pdf, .png and .csv into a folder, and return where they are."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        contents = {**self.render(), "csv": to_csv(self.data).encode()}
        written = []
        for kind, content in contents.items():
            path = target / f"{self.name}.{kind}"
            replace_file(path, content)
            written.append(path)
        return written

    def numbered(self, number: int, setting: tuple[str, ...]) -> "Figure":
        """The same for one setting of several."""
        title = f"{self.title}: {layout.setting_title(setting)}"
        return replace(self, name=f"{self.name}_{number}", title=title)


@dataclass(frozen=True)
class Absent:
    """A figure that this campaign cannot give, and why."""

    name: str
    title: str
    reason: str

    def numbered(self, number: int, setting: tuple[str, ...]) -> "Absent":
        """The same for one setting of several."""
        title = f"{self.title}: {layout.setting_title(setting)}"
        return replace(self, name=f"{self.name}_{number}", title=title)


def called(name: str, setting: tuple[str, ...]) -> str:
    """The Python call behind a figure."""
    return f"figures.{name}(campaign, {tuple(setting)!r})"


def readable(name: str) -> str:
    """A config name as words: first_forward -> first forward."""
    return name.replace("_", " ")


def in_words(estimate: float, low: float, high: float, n: float) -> str:
    """0.99 % (95 % interval 0.87–1.12, n = 22,797)."""
    return (
        f"{formats.percent(estimate)} % (95 % interval {formats.span(low, high)}, "
        f"n = {formats.count(n)})"
    )
