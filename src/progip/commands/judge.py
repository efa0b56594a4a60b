"""``progip judge``: another protection or outcome for runs that were executed long ago."""

import argparse
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from progip.analysis.manifests import CellFolder, correction_of, find_cells
from progip.campaign.cell import Cell
from progip.campaign.settings import CellSettings
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.launching.launched import program
from progip.outcomes.ood_verdict import DECLARED as USUAL
from progip.storage import store

#: what a command may change: what judges, not what is executed
JUDGING = ("protection", "outcome")


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("judge", help=judge_again.__doc__, description=judge_again.__doc__)
    sub.add_argument("folder", type=Path, help="a campaign's folder")
    sub.add_argument("overrides", nargs="+", help="protection=NAME, its options, outcome=NAME")
    sub.set_defaults(action=judge_again)


def judge_again(arguments: argparse.Namespace) -> None:
    """Judge the executed runs of a campaign by another protection or outcome; executes nothing."""
    begun, judged = time.monotonic(), 0
    cells = [settings_of(cell, arguments.overrides) for cell in executed_cells(arguments.folder)]
    for settings, config in cells:
        judged += judge_cell(settings, config)
    print(
        f"\n{judged:,} executed runs of {len(cells)} cells judged by "
        f"'{cells[0][0].protection.name}' in {time.monotonic() - begun:.1f} s; "
        f"no run was executed. The tables: python -m progip report {arguments.folder}"
    )


def executed_cells(folder: Path) -> list[CellFolder]:
    """One cell of each execution that protections share, by name.

    Raises:
        ProgipError: there is none.
    """
    found: dict[Path, CellFolder] = {}
    for cell in find_cells(folder):
        if not correction_of(cell) and store.named_shards(store.execution_folder(cell.path)):
            found.setdefault(cell.path.parent, cell)
    if not found:
        raise ProgipError(
            f"{folder} holds no executed runs that another protection could judge: those of "
            "correcting protections are their own, and a folder without _execution has rows alone"
        )
    return list(found.values())


def settings_of(cell: CellFolder, overrides: list[str]) -> tuple[CellSettings, dict[str, Any]]:
    """A cell's settings and configuration with another protection or outcome.

    Raises:
        ProgipError: an override is of something else, or changes what is executed.
    """
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key.partition(".")[0] not in (*JUDGING, "hydra"):
            raise ProgipError(
                f"{key}: judging again changes {' and '.join(JUDGING)} alone; give anything else "
                "to a campaign of its own (name=...)"
            )
    given = {override.lstrip("+").partition("=")[0].partition(".")[0] for override in overrides}
    fresh: dict[str, Any] = OmegaConf.to_container(composed(overrides), resolve=True)  # type: ignore[assignment]
    config = {**cell.manifest["config"], "runs": cell.manifest["runs"]}
    config |= {name: fresh[name] for name in JUDGING if name in given}
    outcome = config["outcome"]["name"]
    name = config["protection"]["name"] + ("" if outcome == USUAL.name else f"-{outcome}")
    config["cell"] = f"{Path(config['cell']).parent.as_posix()}/{name}"
    settings = cell_settings(OmegaConf.create(config))
    if settings.subject.correction is not None:
        raise ProgipError(
            f"protection '{settings.protection.name}' changes what is executed, so its runs must "
            f"be executed; sweep it: {program()} -m protection=..."
        )
    settings.folder = cell.path.parent / name
    return settings, config


def judge_cell(settings: CellSettings, config: dict[str, Any]) -> int:
    """Judge what is executed of one cell, say so, and return the number of runs."""
    begun = time.monotonic()
    settings.folder.mkdir(parents=True, exist_ok=True)
    cell = Cell(settings, config)
    cell.open(lambda: None)
    work = cell.stage(cell.planned)
    before = len(cell.judged)
    cell.judge_all(work)
    cell.close()
    runs = work.runs_done
    what = "judged" if len(cell.judged) > before else "were judged already"
    rest = "" if work.complete else f"; {cell.planned - runs:,} more are not executed yet"
    print(
        f"{settings.names['cell']}: {runs:,} executed runs {what} "
        f"({time.monotonic() - begun:.1f} s){rest}"
    )
    return runs
