"""The report as text for a terminal, as Markdown and as CSV files."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from progip.errors import ProgipError
from progip.report import formats, layout
from progip.report.breakdown import base_section, pass_section
from progip.report.campaign import Campaign
from progip.report.figures import Absent, Figure, build_figures
from progip.report.layout import Block, Section
from progip.report.runtime import runtime_sections
from progip.report.tables import cells_section, comparison_section, overall_section

WIDTH = 110
FOLDER = "report"


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    allow_mixed: bool = False,
    estimand: str | None = None,
) -> str:
    """Report on a campaign: returns the text to print, and writes the same as files.

    folder: where the campaign was written, finished or not. out: where report.md and one CSV a
    table go, by default `report` in that folder; older ones are replaced. CSV holds fractions of 1
    and counts, unrounded. estimand: the population to speak of, as in `Campaign.load`.

    Raises ProgipError as `Campaign.load` does, and when the files cannot be written.
    """
    campaign = Campaign.load(folder, allow_mixed=allow_mixed, estimand=estimand)
    sections = build_sections(campaign) + runtime_sections(folder)
    title = f"Fault-injection campaign {Path(folder).resolve().name}"
    target = Path(out) if out is not None else Path(folder) / FOLDER
    figures = build_figures(campaign)
    files = {f"{section.name}.csv": to_csv(section.data) for section in sections}
    files["report.md"] = to_markdown(title, campaign.warnings, sections, figures)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _replace(target / name, content)
        for figure in figures:
            if isinstance(figure, Figure):
                figure.write(target)
    except OSError as error:
        raise ProgipError(
            f"cannot write the report to {target} ({error.strerror or error}); give a folder that "
            "can be written to"
        ) from error
    text = to_text(title, campaign.warnings, sections)
    drawn = ", ".join(figure.name for figure in figures if isinstance(figure, Figure))
    return (
        f"{text}\nWritten to {target}:\n{', '.join(sorted(files))}\n"
        f"figures (svg, pdf, png, csv): {drawn or 'none'}"
    )


def build_sections(campaign: Campaign) -> list[Section]:
    """Every section of the report, in order."""
    return [
        cells_section(campaign),
        base_section(campaign),
        overall_section(campaign),
        comparison_section(campaign),
        pass_section(campaign),
    ]


def to_text(title: str, warnings: tuple[str, ...], sections: list[Section]) -> str:
    """The report for a terminal of 100 to 120 columns."""
    lines = [title, "=" * len(title), ""]
    lines += [_wrap(f"Warning: {text}") for text in warnings]
    lines += [""] * bool(warnings)
    for section in sections:
        lines += [section.title, "-" * len(section.title), ""]
        for block in section.blocks:
            lines += [block.title, ""] if block.title else []
            if block.rows:
                lines += [_table(block, "simple"), ""]
            lines += [_wrap(note) for note in block.notes]
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
                lines += [formats.markdown(note), ""]
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


def to_csv(data: pd.DataFrame) -> str:
    """The numbers of a section; the sums of weights only where there are weights."""
    sums = [name for name in data if str(name).endswith(("_w", "_w2", "_effective_n"))]
    if "done_w2" in data and not layout.weighted(data):
        data = data.drop(columns=sums)
    return data.convert_dtypes().to_csv(index=False)


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


def _replace(path: Path, content: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(content, encoding="utf-8", newline="")
    os.replace(draft, path)
