"""What ``python run.py --help`` and ``progip run --help`` print: the keys with their comments."""

import re
import shutil
import textwrap
from itertools import takewhile
from pathlib import Path

from progip.config.search_path import CAMPAIGNS, CONF, own_folders
from progip.errors import ProgipError
from progip.launching.launched import program

#: groups that other commands read: `progip attack`, `progip train`, `progip students`
ELSEWHERE = ("attack", "recipe", "students", "students.procedure")

_TEXT = """\
{program}: run one cell of a campaign, or with -m a sweep of cells.

usage: {program} [-m] [--config-dir FOLDER] [--config-name CAMPAIGN] [KEY=VALUE ...]

  {program}                                    one cell, as the keys below say
  {program} model=resnet20 runs=5000           another choice of a group, another value of a key
  {program} 'fault_model.bits=[30]'            an option of a choice
  {program} -m protection=progip,ranger        a sweep; also the three passes and both populations
  {program} --config-name demo                 a campaign file, of those below
  {program} --config-name mine                 one of your own: campaigns/mine.yaml where you are
  {program} --cfg job                          show the composed configuration, run nothing
  {program} --help protection                  what each choice of a group does, and its options
  {program} --hydra-help                       the options of Hydra: launchers, shell completion

The same command again continues what is unfinished. Results go below outputs/NAME; then:
progip report outputs/NAME.

Groups (GROUP=CHOICE; your own choices: conf/GROUP/CHOICE.yaml where you are):
{groups}

Campaign files (--config-name):
{campaigns}

Keys, with their values where you give none:
{keys}
"""


def wanted_help(argv: list[str]) -> str | None:
    """The help that a command line asks for; None where it asks for none.

    Args:
        argv: with the program's name. Names of groups after ``--help`` ask for these alone.

    Raises:
        ProgipError: there is no such group.
    """
    if not {"-h", "--help"} & set(argv[1:]):
        return None
    groups = [word for word in argv[1:] if not word.startswith("-") and "=" not in word]
    return "\n\n".join(map(_of_group, groups)) if groups else _overview()


def _overview() -> str:
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    keys = text[text.index("\nname:") + 1 : text.index("\n# the folder of the cell")].strip()
    return _TEXT.format(
        program=program(),
        groups=_listed({group.name: ", ".join(_choices(group)) for group in _groups()}),
        campaigns=_listed({path.stem: _summary(path) for path in _campaigns()}),
        keys=textwrap.indent(keys, "  "),
    ).rstrip()


def _of_group(name: str) -> str:
    known = [group.name for group in _groups()]
    if name not in known:
        raise ProgipError(f"--help {name}: no such group. There are: {', '.join(known)}")
    parts = []
    for path in _yaml(CONF / name):
        text = path.read_text(encoding="utf-8").strip()
        parts.append(f"{name}={path.stem}\n{textwrap.indent(text, '  ')}")
    return "\n\n".join(parts)


def _groups() -> list[Path]:
    return sorted(p for p in CONF.iterdir() if p.is_dir() and p.name not in ELSEWHERE)


def _campaigns() -> list[Path]:
    own = [folder for folder in own_folders() if folder.name == "campaigns"]
    return [path for folder in (*own, CAMPAIGNS) for path in _yaml(folder)]


def _choices(group: Path) -> list[str]:
    return [path.stem for path in _yaml(group)]


def _yaml(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"))


def _summary(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    text = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=\.)(?<!et al\.) ", text)[0].removesuffix(".")


def _listed(entries: dict[str, str]) -> str:
    """Names, and beside each its text."""
    width = min(shutil.get_terminal_size().columns, 120)
    column = max(map(len, entries)) + 4
    return "\n".join(
        textwrap.fill(
            text,
            width,
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        for name, text in entries.items()
    )
