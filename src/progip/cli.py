"""``python -m progip``: what is done with a campaign before and after it runs."""

import argparse
import logging
import sys
from pathlib import Path

from progip import __version__
from progip.commands import (
    artefact,
    attack,
    explain,
    faults,
    init,
    judge,
    replay,
    report,
    reproduce,
    run,
    runtime,
    status,
    train,
    validate,
)
from progip.config import entry

#: modules of `progip.commands` in the order of the help; `add` of each makes its command known
COMMANDS = (
    run,
    init,
    validate,
    status,
    report,
    replay,
    judge,
    explain,
    train,
    attack,
    runtime,
    faults,
    artefact,
    reproduce,
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="progip", description=__doc__)
    top.add_argument("--version", action="version", version=f"progip {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def main() -> None:
    """Entry point of ``progip`` and ``python -m progip``."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # modules of one's own, as python -m finds them
    if run.is_for_hydra():
        return run.main()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("progip").setLevel(logging.INFO)  # not those of libraries
    arguments = parser().parse_args()
    entry(lambda: arguments.action(arguments))
