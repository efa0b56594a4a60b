"""The report as a LaTeX document (booktabs); pdflatex, xelatex and lualatex compile it as it is."""

import re
from collections.abc import Sequence

from progip.report.figures import Absent, Figure
from progip.report.layout import Block, Section, plain

_SPECIAL = {mark: f"\\{mark}" for mark in "&%$#_{}"} | {
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "–": "--", "—": "---", "…": r"\dots{}", "·": r"\textperiodcentered{}", "×": r"$\times$",
    "±": r"$\pm$", "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "µ": r"$\mu$",
}  # fmt: skip
PREAMBLE = r"""\documentclass[11pt,a4paper]{article}
\usepackage{iftex}
\ifpdftex\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\fi
\usepackage[margin=2.2cm]{geometry}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[hyphens]{url}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\setlength{\emergencystretch}{3em}
\sloppy
% a table as it is where it fits, else as wide as the text
\newsavebox{\fitbox}
\newcommand{\fit}[1]{\sbox{\fitbox}{#1}%
  \ifdim\wd\fitbox>\textwidth\resizebox{\textwidth}{!}{\usebox{\fitbox}}\else\usebox{\fitbox}\fi}
"""
#: lines of a table that fit a page; longer ones are continued in a next table
MOST_LINES = 45


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, % _ & # and the like included."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(mark, mark) for mark in text)


def tabular(block: Block) -> str:
    """One table, ready for a paper: booktabs rules, first column to the left, numbers right."""
    return "\n".join(_tabulars(block))


def to_latex(
    title: str,
    warnings: tuple[str, ...],
    sections: Sequence[Section],
    figures: Sequence[Figure | Absent],
) -> str:
    """The whole document; figures are the PDF files beside it."""
    lines = [PREAMBLE, rf"\title{{{escape(title)}}}", r"\author{}", r"\date{}"]
    lines += [r"\begin{document}", r"\maketitle"]
    lines += [rf"\textbf{{Warning:}} {_prose(text)}" + "\n" for text in warnings]
    tail = [section for section in sections if section.name in ("methods", "provenance")]
    whole = [s for s in sections if s not in tail and s.name != "map"]  # drawn in vulnerability.pdf
    for section in whole:
        lines += _section(section)
    for figure in figures:
        lines += [rf"\section{{{escape(figure.title)}}}"]
        if isinstance(figure, Absent):
            lines += [f"Not shown: {_prose(figure.reason)}."]
            continue
        lines += [
            r"\begin{center}",
            rf"\includegraphics[width=\textwidth]{{{figure.name}.pdf}}",
            r"\end{center}",
            _prose(figure.caption),
        ]
    for section in tail:
        lines += _section(section)
    return "\n".join([*lines, r"\end{document}", ""])


def _section(section: Section) -> list[str]:
    lines = ["", f"% ---- {section.name}", rf"\section{{{escape(section.title)}}}"]
    for block in section.blocks:
        lines += [rf"\subsection*{{{escape(block.title)}}}"] if block.title else []
        for table in _tabulars(block) if block.rows else []:
            lines += [r"\begin{center}\small", rf"\fit{{{table}}}", r"\end{center}"]
        lines += [_prose(plain(note)) + "\n" for note in block.notes]
    return lines


def _prose(text: str) -> str:
    """A paragraph; addresses may be broken at the end of a line."""
    parts = re.split(r"(https://[^\s]+[^\s.,;])", text)
    return "".join(
        rf"\url{{{part}}}" if part.startswith("https://") else _escaped(part) for part in parts
    )


def _tabulars(block: Block) -> list[str]:
    numeric = [
        place > 0 and any(re.match(r"[<>+-]?\d", row[place]) for row in block.rows)
        for place in range(len(block.headers))
    ]
    columns = "".join("r" if number else "l" for number in numeric)
    head = [rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule", _row(block.headers)]
    tables = []
    for start in range(0, len(block.rows), MOST_LINES):
        body = [_row(row) for row in block.rows[start : start + MOST_LINES]]
        tables.append("\n".join([*head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]))
    return tables


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    label = rf"\quad {escape(first[2:])}" if first.startswith("· ") else escape(first)
    # a line that begins with [ would be read as an option of the \\ before it
    return (
        " & ".join(["{}" + label if label.startswith("[") else label, *map(escape, rest)]) + r" \\"
    )
