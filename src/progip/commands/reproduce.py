"""``progip reproduce``: executes an artefact again, and says of each table whether it recurs."""

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from tabulate import tabulate

from progip import records
from progip.analysis.campaign import Campaign
from progip.analysis.manifests import find_cells
from progip.campaign.runner import run_cell
from progip.commands.artefact import CHECKSUMS, RESULTS
from progip.config import cell_settings
from progip.errors import ProgipError
from progip.report.rendering.csvs import to_csv
from progip.report.writing import build_sections

REPRODUCED, DIFFERS = "reproduced", "differs"
#: sections that describe machine and software instead of results
_NOT_RESULTS = ("methods", "provenance")


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("reproduce", help=reproduce.__doc__, description=reproduce.__doc__)
    sub.add_argument("archive", type=Path, help="what `artefact` wrote, or the folder unpacked")
    sub.add_argument("--out", type=Path, help="where it is executed; default: ARCHIVE-reproduced")
    sub.add_argument("--against", type=Path, help="a campaign's folder, executed already")
    sub.set_defaults(action=reproduce)


def reproduce(arguments: argparse.Namespace) -> None:
    """Execute an artefact again and compare rows and tables; exit code 1 where one differs."""
    name = arguments.archive.resolve().name.removesuffix(".tar.gz")
    out = arguments.out or arguments.archive.resolve().with_name(f"{name}-reproduced")
    results = unpacked(arguments.archive, out / "artefact") / RESULTS
    again = arguments.against or out / "campaign"
    if arguments.against is None:
        execute(results, again)
    lines = [compared_rows(results, again), *compared_tables(results, again)]
    print(tabulate(lines, ["", "", "first difference"], tablefmt="simple", disable_numparse=True))
    if any(line[1] == DIFFERS for line in lines):
        sys.exit(1)


def unpacked(archive: Path, target: Path) -> Path:
    """The folder of an artefact, every file of it as its checksum says.

    Raises:
        ProgipError: it is no artefact, or a file was changed since.
    """
    if archive.is_file():
        shutil.rmtree(target, ignore_errors=True)
        try:
            with tarfile.open(archive) as files:
                files.extractall(target, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ProgipError(f"{archive} cannot be unpacked ({error})") from error
    else:
        target = archive
    found = (
        [target]
        if (target / CHECKSUMS).exists()
        else [p.parent for p in target.glob(f"*/{CHECKSUMS}")]
    )
    if len(found) != 1:
        raise ProgipError(f"{archive} is no artefact of a campaign: there is no {CHECKSUMS} in it")
    for name, digest in json.loads((found[0] / CHECKSUMS).read_text()).items():
        path = found[0] / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ProgipError(f"{archive}: {name} is not the file that the artefact was made of")
    return found[0]


def execute(results: Path, again: Path) -> None:
    """Run every cell by the configuration in its manifest; what is there already is continued."""
    for cell in find_cells(results):
        config = {**cell.manifest["config"], "runs": cell.manifest["runs"]}
        settings = cell_settings(OmegaConf.create(config))
        settings.folder = again / cell.name
        run_cell(settings, config)


def compared_rows(one: Path, other: Path) -> list[str]:
    """Whether the rows of every cell are the same, bit for bit."""
    for cell in find_cells(one):
        folder = other / cell.name
        if not (folder / "manifest.json").exists():
            return ["rows", DIFFERS, f"{cell.name} is not there"]
        first, second = _rows(cell.path), _rows(folder)
        if first.num_rows != second.num_rows:
            counts = f"{first.num_rows:,} and {second.num_rows:,}"
            return ["rows", DIFFERS, f"{cell.name}: {counts} runs"]
        for name in first.column_names:
            if name not in second.column_names:
                return ["rows", DIFFERS, f"{cell.name}: {name} is not there"]
            same = records.same_values(records.values(first[name]), records.values(second[name]))
            if not same.all():
                row = int(np.flatnonzero(~same)[0])
                values = f"{first[name][row]} and {second[name][row]}"
                return ["rows", DIFFERS, f"{cell.name}: {name} of run {row}: {values}"]
    return ["rows", REPRODUCED, ""]


def compared_tables(one: Path, other: Path) -> list[list[str]]:
    """Of each table of the report, its title, and whether its numbers are the same."""
    sections = [_sections(folder) for folder in (one, other)]
    lines = []
    for name, (title, data) in sections[0].items():
        there = sections[1].get(name)
        said = "there is no such table" if there is None else _difference(data, there[1])
        lines.append([title, DIFFERS if said else REPRODUCED, said])
    return lines


def _sections(folder: Path) -> dict[str, tuple[str, pd.DataFrame]]:
    campaign = Campaign.load(folder, allow_mixed=True)
    found = build_sections(campaign)
    return {s.name: (s.title, s.data) for s in found if s.name not in _NOT_RESULTS and len(s.data)}


def _difference(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """The first cell in which two tables differ, as written to CSV; "" where they do not."""
    first, second = to_csv(one).splitlines(), to_csv(other).splitlines()
    if first == second:
        return ""
    if len(first) != len(second) or first[0] != second[0]:
        return f"{len(first) - 1} lines and {len(second) - 1} lines, or other columns"
    row = next(i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
    for name in one.columns:
        values = one[name].iloc[row - 1], other[name].iloc[row - 1]
        if str(values[0]) != str(values[1]):
            return f"line {row}, {name}: {values[0]} and {values[1]}"
    return f"line {row}"


def _rows(folder: Path) -> pa.Table:
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(parts).sort_by("run_id")
