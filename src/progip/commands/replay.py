"""``progip replay``: one row, executed again."""

import argparse
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tabulate import tabulate

from progip.campaign.replay import cell_of, manifest_of, replay, spread
from progip.config import cell_settings
from progip.errors import ProgipError


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("replay", help=replay_run.__doc__, description=replay_run.__doc__)
    sub.add_argument("folder", help="a cell's folder, the one with manifest.json, or a campaign's")
    sub.add_argument("run", type=int, help="the run_id of the row")
    sub.add_argument(
        "--cell", default="", help="in a campaign: words of the cell's path, as backward-id,progip"
    )
    sub.set_defaults(action=replay_run)


def replay_run(arguments: argparse.Namespace) -> None:
    """Re-execute one row and show what it did; exit code 1 if it differs from what is stored."""
    folder = cell_of(Path(arguments.folder), arguments.cell)
    settings = cell_settings(OmegaConf.create(manifest_of(folder)["config"]))
    settings.folder = folder
    result = replay(settings, arguments.run)
    stored, replayed = result.stored.to_pylist()[0], result.replayed.to_pylist()[0]
    width = max(len(name) for name in stored)
    for name, value in stored.items():
        again = f"   NOW {replayed[name]}" if name in result.differences else ""
        print(f"{name:{width}}  {value}{again}")
    print("\nAgainst golden:")
    print("\n".join(f"  {line}" for line in spread(result.layers)))
    rows = [
        [layer.fault_pass, layer.layer, f"{layer.differing:,} of {layer.elements:,}", layer.largest]
        for layer in result.layers
        if layer.differing
    ]
    if rows:
        headers = ["pass", "layer", "values that differ", "largest difference"]
        print("\n" + tabulate(rows, headers, floatfmt=".6g", disable_numparse=[0, 1, 2]))
    if result.differences:
        raise ProgipError(
            f"run {arguments.run} does not replay: {', '.join(result.differences)} differ; the row "
            "was made by another version, machine or thread count (see the manifest), or a defect"
        )
    print(f"\nrun {arguments.run} replays exactly: every column is the same, bit for bit")
