"""``progip init``: a campaign to begin with, a network of one's own, and what to do with them."""

import argparse
from pathlib import Path
from typing import Any

from progip.errors import ProgipError

TEMPLATE = Path(__file__).resolve().parent / "template"

_NEXT = """\
{files}

{change}progip run --config-name first         # handwritten digits, 18 cells, under a minute
progip report outputs/first            # tables on the screen, and a page with figures

Then your own network, which my_network.py begins:
progip train model=mine dataset=digits
progip run --config-name first name=mine model=mine
progip report outputs/mine"""


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("init", help=init.__doc__, description=init.__doc__)
    sub.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: this one")
    sub.set_defaults(action=init)


def init(arguments: argparse.Namespace) -> None:
    """Write a campaign to begin with, and a network of your own, into a folder."""
    print(write(arguments.folder))


def write(folder: Path) -> str:
    """Write the files of ``TEMPLATE``; nothing that is there is changed.

    Returns:
        What was written, and the commands that come next.

    Raises:
        ProgipError: one of the files is there already.
    """
    files = sorted(
        path.relative_to(TEMPLATE)
        for path in TEMPLATE.rglob("*")
        if path.suffix in (".py", ".yaml")
    )
    if there := [str(folder / name) for name in files if (folder / name).exists()]:
        raise ProgipError(
            f"{', '.join(there)}: already there, so nothing is written; give another folder"
        )
    for name in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((TEMPLATE / name).read_text(encoding="utf-8"), encoding="utf-8")
    return _NEXT.format(
        files="\n".join(f"wrote {folder / name}" for name in files),
        change="" if folder.resolve() == Path.cwd() else f"cd {folder}\n",
    )
