"""The report as one HTML file that needs nothing else: no network, no server.

Everything can be read without its script, which only sorts, filters and shows values.
"""

import base64
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from progip.report.figures import Absent, Figure
from progip.report.figures.base import Rendered
from progip.report.layout import FEW, Block, Note, Section, Value, pieces
from progip.report.rendering.csvs import to_csv

FILES = ("page.html.j2", "page.css", "page.js")
#: a CSV up to this size can be saved from the page itself
LARGEST_CSV = 40_000
_LINK = re.compile(r"https://[^\s]+[^\s.,;]")


def to_html(
    title: str,
    warnings: tuple[str, ...],
    sections: Sequence[Section],
    figures: Sequence[Figure | Absent],
    folder: str = "outputs/NAME",
    rendered: dict[str, Rendered] | None = None,
    options: dict[str, Any] | None = None,
) -> str:
    """The page: summary first, then tables, figures, methods, provenance.

    Args:
        folder: what the queries on the page call the campaign's folder.
        rendered: figures by name, where there are some already.
        options: with which the campaign was loaded.
    """
    drawn = [figure for figure in figures if isinstance(figure, Figure)]
    images = rendered or {figure.name: figure.rendered() for figure in drawn}
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.tests["continued"] = lambda label: str(label).startswith("·")
    environment.filters |= {"pieces": pieces, "paragraph": _paragraph}
    text, style, script = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8") for name in FILES
    )
    opening = [s for s in sections if s.name == "opening"]
    first = [s for s in sections if s.name == "summary"]
    last = [s for s in sections if s.name in ("methods", "provenance")]
    between = [s for s in sections if s not in [*opening, *first, *last]]
    head = next((figure for figure in drawn), None) if opening else None
    mapped = any(section.name == "map" for section in sections)
    others = [
        figure
        for figure in figures
        if figure is not head and not (mapped and figure.name.startswith("vulnerability"))
    ]
    return environment.from_string(text).render(
        title=title,
        options="".join(f", {name}={value!r}" for name, value in (options or {}).items()),
        warnings=warnings,
        style=Markup(style),
        script=Markup(script),
        opening=opening,
        head=head,
        summary=first,
        tables=between,
        figures=others,
        last=last,
        images={n: _uri("image/svg+xml", one.files["svg"]) for n, one in images.items()},
        rendered=images,
        csvs={
            **{section.name: _csv(section.data) for section in sections},
            **{figure.name: _csv(figure.data) for figure in drawn},
        },
        folder=folder,
        is_value=lambda text: isinstance(text, Value),
        is_absent=lambda figure: isinstance(figure, Absent),
        is_number=_is_number,
        numeric=_numeric,
        few=FEW,
    )


def _csv(data: pd.DataFrame) -> str | None:
    """A link that saves a table; None where it is too large for the page."""
    content = to_csv(data).encode()
    return _uri("text/csv", content) if len(content) <= LARGEST_CSV else None


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _paragraph(note: Note, name: str) -> Markup:
    """A paragraph whose numbers say where they stand, and whose addresses are links."""
    parts = []
    for piece in pieces(note):
        text = escape(piece.replace(" %", "\N{NO-BREAK SPACE}%"))
        if isinstance(piece, Value):
            place = Markup('data-csv="{}.csv" data-row="{}" data-column="{}"')
            where = place.format(name, piece.row, " ".join(piece.columns))
            parts.append(Markup("<data {}>{}</data>").format(where, piece))
        else:
            parts.append(Markup(_LINK.sub(r'<a href="\g<0>">\g<0></a>', str(text))))
    return Markup("").join(parts)


def _is_number(text: str) -> bool:
    return bool(re.match(r"[<>+-]?\d|–$|N/A", text))


def _numeric(block: Block) -> list[bool]:
    """Which columns hold numbers."""
    return [
        place > 0 and any(_is_number(row[place]) for row in [*block.rows, *block.rest])
        for place in range(len(block.headers))
    ]
