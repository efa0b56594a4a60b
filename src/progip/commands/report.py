"""``progip report``: tables, page and figures of a campaign."""

import argparse
from typing import Any

from progip.analysis.tally import ESTIMANDS
from progip.report.writing import write_report
from progip.statistics import METHODS

BESIDE = "published figures of ProGIP beside ours, although networks, data or detectors are others"


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("report", help=report.__doc__, description=report.__doc__)
    sub.add_argument("folder", help="a campaign's folder, e.g. outputs/campaign")
    sub.add_argument("--out", help="where the files go; default FOLDER/report")
    sub.add_argument(
        "--allow-mixed", action="store_true", help="merge cells of different seeds, weights or data"
    )
    sub.add_argument(
        "--estimand",
        choices=ESTIMANDS,
        help="the population that rates describe; default: as the fault model hits layers",
    )
    sub.add_argument(
        "--interval",
        choices=[name.replace("_", "-") for name in METHODS],
        default="wilson",
        help="clopper-pearson: exact and wider, for certification; default: wilson",
    )
    sub.add_argument("--beside", action="store_true", help=BESIDE)
    sub.add_argument(
        "--outcome", help="name of the outcome to report, where cells were judged by several"
    )
    sub.add_argument(
        "--fit",
        metavar="RATES.yaml",
        help="raw failure rates per bit (docs/fit.md); adds failures in time, diagnostic coverage",
    )
    sub.add_argument(
        "--confidence", type=float, default=0.95, help="of the one-sided limits of --fit; .95"
    )
    sub.set_defaults(action=report)


def report(arguments: argparse.Namespace) -> None:
    """Print the tables of a campaign; write page, Markdown, LaTeX, figures and CSV."""
    print(
        write_report(
            arguments.folder,
            arguments.out,
            allow_mixed=arguments.allow_mixed,
            estimand=arguments.estimand,
            interval=arguments.interval.replace("-", "_"),
            beside=arguments.beside,
            outcome=arguments.outcome,
            fit=arguments.fit,
            confidence=arguments.confidence,
        )
    )
