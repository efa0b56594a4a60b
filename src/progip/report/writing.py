"""The report: for a terminal, as a page, as Markdown, as LaTeX, as figures and CSV files."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from progip.analysis.campaign import Campaign
from progip.errors import ProgipError
from progip.report.figures import Figure, build_figures
from progip.report.layout import Section
from progip.report.rendering.csvs import replace_file, to_csv
from progip.report.rendering.latex import to_latex
from progip.report.rendering.page import to_html
from progip.report.rendering.text import to_markdown, to_text
from progip.report.sections.breakdown import base_section, pass_section
from progip.report.sections.detectors import detectors_section
from progip.report.sections.error_rates import rates_section
from progip.report.sections.fit import fit_section
from progip.report.sections.heads import heads_section
from progip.report.sections.layers import layers_section
from progip.report.sections.measures import measures_section
from progip.report.sections.methods import methods_section
from progip.report.sections.misclassification import scm_section, sdc_section
from progip.report.sections.missed import missed_section
from progip.report.sections.opening import opening_section
from progip.report.sections.provenance import provenance_section
from progip.report.sections.published_comparison import beside_section
from progip.report.sections.ranked_bits import ranked_bits_section
from progip.report.sections.runtime import runtime_sections
from progip.report.sections.site_map import map_section
from progip.report.sections.summary import summary_section
from progip.report.sections.tables import cells_section, comparison_section, overall_section

FOLDER = "report"
PAGE = "report.html"
#: every section of the report, in order; each is a function of the campaign
SECTIONS: tuple[Callable[[Campaign], Section], ...] = (
    opening_section,
    summary_section,
    cells_section,
    base_section,
    overall_section,
    beside_section,
    comparison_section,
    pass_section,
)
#: those about faults that hit one neuron; faults at a rate have a section of their own
OF_SINGLE = (summary_section, overall_section, beside_section, comparison_section, pass_section)
LAST_SECTIONS: tuple[Callable[[Campaign], Section], ...] = (methods_section, provenance_section)


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    allow_mixed: bool = False,
    estimand: str | None = None,
    interval: str = "wilson",
    beside: bool = False,
    outcome: str | None = None,
    fit: str | None = None,
    confidence: float = 0.95,
) -> str:
    """Report on a campaign: returns the text to print, and writes the same as files.

    Args:
        folder: where the campaign was written, finished or not.
        out: where the files go, by default `report` in that folder; older ones are replaced: the
            page (report.html), report.md, report.tex, each figure as SVG, PDF and PNG, and the
            numbers of each table and figure as CSV, fractions of 1 and counts, unrounded.
        allow_mixed: add up cells of different seeds, weights or data.
        estimand: the population to describe, as in `Campaign.load`.
        interval: method of the intervals, a key of `progip.statistics.METHODS`.
        beside: put published figures beside ours although networks, data or detectors are others.
        outcome: as in `Campaign.load`.
        fit: file of raw failure rates per bit; adds failures in time and diagnostic coverage.
        confidence: of their one-sided limits.

    Raises:
        ProgipError: as `Campaign.load` does, and when the files cannot be written.
    """
    chosen: dict[str, Any] = {
        "allow_mixed": allow_mixed,
        "estimand": estimand,
        "interval": interval,
        "beside": beside,
        "outcome": outcome,
    }
    campaign = Campaign.load(folder, **chosen)
    in_time = [fit_section(campaign, str(fit), confidence)] if fit is not None else []
    sections = build_sections(campaign, [*in_time, *runtime_sections(folder, beside)])
    figures = build_figures(campaign)
    drawn = [figure for figure in figures if isinstance(figure, Figure)]
    rendered = {figure.name: figure.rendered() for figure in drawn}
    title = f"Fault-injection campaign {Path(folder).resolve().name}"
    target = Path(out) if out is not None else Path(folder) / FOLDER
    whole = (title, campaign.warnings, sections)
    usual = inspect.signature(Campaign.load).parameters
    options = {name: value for name, value in chosen.items() if value != usual[name].default}
    page = to_html(*whole, figures, f"outputs/{Path(folder).resolve().name}", rendered, options)
    texts = {f"{section.name}.csv": to_csv(section.data) for section in sections}
    texts |= {f"{figure.name}.csv": to_csv(figure.data) for figure in drawn}
    texts |= {PAGE: page, "report.md": to_markdown(*whole, figures)}
    texts |= {"report.tex": to_latex(*whole, figures)}
    files = {name: text.encode() for name, text in texts.items()}
    for name, images in rendered.items():
        files |= {f"{name}.{kind}": content for kind, content in images.files.items()}
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
    """Every section of the report, in order; measured: those of more than its rows."""
    single, rates = campaign.single, rates_section(campaign)
    first = [
        builder(single if builder in OF_SINGLE else campaign)
        for builder in SECTIONS
        if len(single.cells) or builder not in OF_SINGLE
    ]
    optional = (
        detectors_section(campaign),
        missed_section(campaign),
        sdc_section(campaign),
        scm_section(campaign),
        heads_section(campaign),
        layers_section(campaign),
        ranked_bits_section(campaign),
        map_section(campaign),
        measures_section(campaign),
        rates,
    )
    last = [builder(campaign) for builder in LAST_SECTIONS]
    return [*first, *(part for part in optional if part is not None), *measured, *last]
