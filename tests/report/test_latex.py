import re
import shutil
import subprocess
from pathlib import Path

import pytest
from campaign_factory import Write, runs

from progip.report import write_report
from progip.report.layout import Block
from progip.report.rendering import latex

COMPILER = next((p for n in ("tectonic", "pdflatex", "lualatex") if (p := shutil.which(n))), None)
ODD = r"a_b%c&d#e$f{g}h~i^j\k<l>m|n"


def test_names_survive() -> None:
    text = latex.escape(ODD)
    assert text.startswith(r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j")
    assert latex.escape("98.50–98.94") == "98.50--98.94"


def test_a_table_is_booktabs() -> None:
    block = Block("t", ["", "x_1"], [["A & B", "1"], ["· n", "2"], ["[odd]", "3"]])
    assert latex.tabular(block).splitlines() == [
        r"\begin{tabular}{@{}lr@{}}",
        r"\toprule",
        r" & x\_1 \\",
        r"\midrule",
        r"A \& B & 1 \\",
        r"\quad n & 2 \\",
        r"{}[odd] & 3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.skipif(COMPILER is None, reason="no LaTeX compiler on this machine")
def test_the_document_compiles_as_it_is(campaign: Path, write_cell: Write, tmp_path: Path) -> None:
    for protection in ("none", "pro_gip%"):
        rows = runs(detection="x.", harmless="." * 9)
        write_cell(rows, model=r"net_&#\%", protection=protection, folder=protection[:3])
    write_report(campaign, tmp_path)
    options = [] if "tectonic" in str(COMPILER) else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run(
        [str(COMPILER), *options, "report.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    assert not re.search(r"Overfull \\hbox \(([3-9]\d|\d{3,})", done.stdout), done.stdout
