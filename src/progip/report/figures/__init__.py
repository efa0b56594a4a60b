"""The figures of the report: one module each, a function of the campaign, listed here."""

from collections.abc import Callable

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.report.figures.base import Absent, Figure
from progip.report.figures.bits import bits
from progip.report.figures.detection import detection
from progip.report.figures.error_rates import rates
from progip.report.figures.explained import explained
from progip.report.figures.number_formats import number_formats
from progip.report.figures.overview import overview
from progip.report.figures.passes import passes
from progip.report.figures.precision import precision
from progip.report.figures.scm import scm
from progip.report.figures.scores import scores
from progip.report.figures.sweep import sweep
from progip.report.figures.tradeoff import tradeoff
from progip.report.figures.vulnerability import vulnerability

#: what a figure is made by: (campaign, setting) -> figures, or why there is none
Builder = Callable[[Campaign, tuple[str, ...]], list[Figure | Absent]]
BUILDERS: tuple[Builder, ...] = (
    overview,
    passes,
    vulnerability,
    bits,
    tradeoff,
    detection,
    scores,
    precision,
)


def build_figures(campaign: Campaign) -> list[Figure | Absent]:
    """Every figure of a campaign: faults at a rate, then those of single neurons by setting."""
    settings = [setting for setting, _ in by_group(campaign.single.cells, SETTING)]
    found: list[Figure | Absent] = [*rates(campaign), *scm(campaign), *sweep(campaign)]
    found += [*number_formats(campaign), *explained(campaign)]
    for number, setting in enumerate(settings, 1):
        for builder in BUILDERS:
            for figure in builder(campaign, setting):
                found.append(figure if len(settings) == 1 else figure.numbered(number, setting))
    return found


__all__ = [
    "BUILDERS",
    "Absent",
    "Builder",
    "Figure",
    "bits",
    "build_figures",
    "detection",
    "explained",
    "number_formats",
    "overview",
    "passes",
    "precision",
    "rates",
    "scm",
    "scores",
    "sweep",
    "tradeoff",
    "vulnerability",
]
