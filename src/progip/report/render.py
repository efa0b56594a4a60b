"""The report: for a terminal, as a page, as Markdown, as LaTeX, as figures and CSV files."""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from progip.errors import ProgipError
from progip.report import formats
from progip.report.beside import beside_section
from progip.report.breakdown import base_section, pass_section
from progip.report.campaign import Campaign
from progip.report.csvs import replace_file, to_csv
from progip.report.figures import Absent, Figure, build_figures
from progip.report.latex import to_latex
from progip.report.layout import Block, Section, plain
from progip.report.methods import methods_section
from progip.report.page import to_html
from progip.report.provenance import provenance_section
from progip.report.rates_section import rates_section
from progip.report.runtime import runtime_sections
from progip.report.summary import summary_section
from progip.report.tables import cells_section, comparison_section, overall_section

WIDTH = 110
FOLDER = "report"
PAGE = "report.html"
#: every section of the report, in order; each is a function of the campaign
SECTIONS: tuple[Callable[[Campaign], Section], ...] = (
    summary_section,
    cells_section,
    base_section,
    overall_section,
    beside_section,
    comparison_section,
    pass_section,
)
#: those that speak of faults that hit one neuron; faults at a rate have a section of their own
OF_SINGLE = (summary_section, overall_section, beside_section, comparison_section, pass_section)
LAST_SECTIONS: tuple[Callable[[Campaign], Section], ...] = (methods_section, provenance_section)
#: what a terminal is spared; it stands in the files
NOT_PRINTED = ("published", "methods", "provenance")


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    allow_mixed: bool = False,
    estimand: str | None = None,
    interval: str = "wilson",
    beside: bool = False,
) -> str:
    """Report on a campaign: returns the text to print, and writes the same as files.

    folder: where the campaign was written, finished or not. out: where the files go, by default
    `report` in that folder; older ones are replaced: the page (report.html), report.md, report.tex,
    each figure as SVG, PDF and PNG, and the numbers of each table and figure as CSV, fractions of 1
    and counts, unrounded. estimand: the population to speak of, as in `Campaign.load`.
    interval: method of the intervals, a key of `progip.statistics.METHODS`. beside: put published
    figures beside ours although networks, data or detectors are others.

    Raises ProgipError as `Campaign.load` does, and when the files cannot be written.
    """
    chosen: dict[str, Any] = {
        "allow_mixed": allow_mixed,
        "estimand": estimand,
        "interval": interval,
        "beside": beside,
    }
    campaign = Campaign.load(folder, **chosen)
    sections = build_sections(campaign, runtime_sections(folder, beside))
    figures = build_figures(campaign)
    drawn = [figure for figure in figures if isinstance(figure, Figure)]
    rendered = {figure.name: figure.render() for figure in drawn}
    title = f"Fault-injection campaign {Path(folder).resolve().name}"
    target = Path(out) if out is not None else Path(folder) / FOLDER
    svgs = {name: files["svg"] for name, files in rendered.items()}
    whole = (title, campaign.warnings, sections)
    usual = inspect.signature(Campaign.load).parameters
    options = {name: value for name, value in chosen.items() if value != usual[name].default}
    page = to_html(*whole, figures, f"outputs/{Path(folder).resolve().name}", svgs, options)
    texts = {f"{section.name}.csv": to_csv(section.data) for section in sections}
    texts |= {f"{figure.name}.csv": to_csv(figure.data) for figure in drawn}
    texts |= {PAGE: page, "report.md": to_markdown(*whole, figures)}
    texts |= {"report.tex": to_latex(*whole, figures)}
    files = {name: text.encode() for name, text in texts.items()}
    for name, images in rendered.items():
        files |= {f"{name}.{kind}": content for kind, content in images.items()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_file(target / name, content)
    except OSError as error:
        raise ProgipError(
            f"cannot write the report to {target} ({error.strerror or error}); give a folder that "
            "can be written to"
        ) from error
    names = ", ".join(figure.name for figure in drawn)
    return (
        f"{to_text(*whole)}\nWritten to {target}:\n{PAGE}, report.md, report.tex, "
        f"{', '.join(f'{section.name}.csv' for section in sections)}\n"
        f"figures (svg, pdf, png, csv): {names or 'none'}"
    )


def build_sections(campaign: Campaign, measured: Sequence[Section] = ()) -> list[Section]:
    """Every section of the report, in order; measured: those that do not come from its rows."""
    single, rates = campaign.single, rates_section(campaign)
    first = [
        builder(single if builder in OF_SINGLE else campaign)
        for builder in SECTIONS
        if len(single.cells) or builder not in OF_SINGLE
    ]
    last = [builder(campaign) for builder in LAST_SECTIONS]
    return [*first, *([rates] if rates is not None else []), *measured, *last]


def to_text(title: str, warnings: tuple[str, ...], sections: list[Section]) -> str:
    """The report for a terminal of 100 to 120 columns."""
    lines = [title, "=" * len(title), ""]
    lines += [_wrap(f"Warning: {text}") for text in warnings]
    lines += [""] * bool(warnings)
    for section in [section for section in sections if section.name not in NOT_PRINTED]:
        lines += [section.title, "-" * len(section.title), ""]
        for block in section.blocks:
            lines += [block.title, ""] if block.title else []
            if block.rows:
                lines += [_table(block, "simple"), ""]
            lines += [_wrap(plain(note)) for note in block.notes]
            lines += [""] * bool(block.notes)
    return "\n".join(lines)


def to_markdown(
    title: str,
    warnings: tuple[str, ...],
    sections: list[Section],
    figures: Sequence[Figure | Absent] = (),
) -> str:
    """The report as a Markdown page; names keep their | and _."""
    lines = [f"# {formats.markdown(title)}", ""]
    lines += [f"- **Warning**: {formats.markdown(text)}" for text in warnings]
    lines += [""] * bool(warnings)
    for section in sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += [f"### {formats.markdown(block.title)}", ""] if block.title else []
            if block.rows:
                lines += [_table(_escaped(block), "pipe"), ""]
            for note in block.notes:
                lines += [formats.markdown(plain(note)), ""]
        lines += [f"Numbers: [{section.name}.csv]({section.name}.csv)", ""]
    for figure in figures:
        lines += [f"## {formats.markdown(figure.title)}", ""]
        if isinstance(figure, Absent):
            lines += [f"Not shown: {formats.markdown(figure.reason)}.", ""]
            continue
        lines += [f"![{formats.markdown(figure.alt)}]({figure.name}.svg)", ""]
        lines += [formats.markdown(figure.caption), ""]
        lines += [f"Numbers: [{figure.name}.csv]({figure.name}.csv)", ""]
    return "\n".join(lines)


def _table(block: Block, style: str) -> str:
    """First column to the left, the others to the right; words in a column stay to the left."""
    align = [
        "right" if any(row[i][:1].isdigit() for row in block.rows) and i else "left"
        for i in range(len(block.headers))
    ]
    return tabulate(
        block.rows, block.headers, tablefmt=style, colalign=align, disable_numparse=True
    )


def _escaped(block: Block) -> Block:
    rows = [[formats.markdown(text) for text in row] for row in block.rows]
    return Block(block.title, [formats.markdown(text) for text in block.headers], rows, block.notes)


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
