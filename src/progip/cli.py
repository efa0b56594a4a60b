"""``python -m progip``: what is done with a campaign before and after it runs."""

import argparse
import logging
import os
import sys
from importlib import import_module
from pathlib import Path

from progip import __version__
from progip.config import entry

#: words of the command line and their modules in `progip.commands`, in the order of the help
COMMANDS = {
    "run": "run",
    "init": "init",
    "validate": "validate",
    "status": "status",
    "report": "report",
    "replay": "replay",
    "judge": "judge",
    "explain": "explain",
    "explain-errors": "explain",
    "train": "train",
    "students": "students",
    "attack": "attack",
    "runtime": "runtime",
    "import-faults": "faults",
    "export-faults": "faults",
    "compare-faults": "faults",
    "artefact": "artefact",
    "reproduce": "reproduce",
}


def parser(only: str = "") -> argparse.ArgumentParser:
    """The command line.

    Args:
        only: the word whose module alone is loaded, for a quick start; unknown ones load all.
    """
    top = argparse.ArgumentParser(prog="progip", description=__doc__)
    top.add_argument("--version", action="version", version=f"progip {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    wanted = [COMMANDS[only]] if only in COMMANDS else dict.fromkeys(COMMANDS.values())
    for name in wanted:
        import_module(f"progip.commands.{name}").add(commands)
    return top


def parsed(words: list[str]) -> argparse.Namespace:
    """What the words ask for; overrides may stand on both sides of options.

    argparse takes only the first group of words for them (and has no intermixed parsing of
    subcommands).
    """
    read = parser(words[0] if words else "")
    arguments, rest = read.parse_known_args(words)
    if rest and (any(word.startswith("-") for word in rest) or not hasattr(arguments, "overrides")):
        read.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def is_for_hydra() -> bool:
    """Whether ``progip ...`` is ``progip run ...``, which then looks like ``run.py ...``.

    Also where the shell asks what can follow ``progip run``: Hydra knows no such word.
    """
    if sys.argv[1:2] == ["run"]:
        sys.argv = [f"{sys.argv[0]} run", *sys.argv[2:]]
        return True
    os.environ["COMP_LINE"] = os.environ.get("COMP_LINE", "").replace(" run ", " ", 1)
    return sys.argv[1:2] == ["-sc"]


def main() -> None:
    """Entry point of ``progip`` and ``python -m progip``."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # modules of one's own, as python -m finds them
    if is_for_hydra():
        from progip.commands import run  # only here: it loads the whole runner

        return run.main()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("progip").setLevel(logging.INFO)  # not those of libraries
    arguments = parsed(sys.argv[1:])
    entry(lambda: arguments.action(arguments))
