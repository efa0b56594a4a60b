"""A report for a terminal, and as Markdown."""

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from progip.report import formats
from progip.report.figures import Absent, Figure
from progip.report.layout import Block, Section, plain

WIDTH = 110
#: what a terminal is spared; it stands in the files
NOT_PRINTED = ("published", "map", "methods", "provenance")


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
