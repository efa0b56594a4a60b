"""``progip status``: how far a campaign is."""

import argparse
import sys
from pathlib import Path
from typing import Any

from progip.report.status import load_status


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("status", help=show_status.__doc__, description=show_status.__doc__)
    sub.add_argument("folder", help="a campaign's folder; it may be running, on any machine")
    sub.set_defaults(action=show_status)


def show_status(arguments: argparse.Namespace) -> None:
    """Show how far a campaign is and what finishes it; exit code 1 if a cell failed."""
    found = load_status(Path(arguments.folder))
    print(found.text())
    if found.failed:
        sys.exit(1)
