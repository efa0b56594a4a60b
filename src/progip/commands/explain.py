"""``progip explain`` and ``explain-errors``: where networks look, with faults and without."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from tabulate import tabulate

from progip.campaign.replay import cell_of, manifest_of
from progip.config import cell_settings
from progip.errors import ProgipError
from progip.explain.stored_run import explain
from progip.explain.weight_errors import moved_maps, summary
from progip.models.loading import load_network
from progip.report.figures.base import Figure
from progip.report.figures.explained import CAPTION, TITLE, draw
from progip.storage.whole_files import write_whole


def explain_run(arguments: argparse.Namespace) -> None:
    """Show where the network looks in a run, without and with its fault (Ablation-CAM)."""
    folder = cell_of(Path(arguments.folder), arguments.cell)
    settings = cell_settings(OmegaConf.create(manifest_of(folder)["config"]))
    settings.folder = folder
    found = explain(settings, arguments.run, arguments.layer)
    found.keep(folder)
    name = f"explained-{arguments.run}"
    figure = Figure(name, TITLE, CAPTION, "", found.frame(), draw, "")
    out = Path(arguments.out or folder) / f"{name}.png"
    write_whole(out, lambda path: path.write_bytes(figure.render()["png"]))
    row = found.row
    print(
        f"run {arguments.run}: bit {row['bit']} of layer {row['layer']}; class "
        f"{row['golden_class']}, with the fault {row['faulty_class']}\n"
        f"Ablation-CAM of class {found.label} at layer {found.layer}:"
    )
    for what, there in (("fault-free", found.clean), ("with the fault", found.faulty)):
        if there is None:
            print(f"  no map {what}: its values are not finite")
    if found.clean is not None and found.faulty is not None:
        print(
            f"  overlap of the top fifth {found.overlap:.3f}, correlation {found.correlation:.3f}"
        )
    print(f"{out}; the report of the campaign shows it, too")


def explain_weight_errors(arguments: argparse.Namespace) -> None:
    """Compare how far the maps of two networks move under the same weight bit errors."""
    networks, images = {}, None
    for path in (arguments.one, arguments.other):
        settings = cell_settings(OmegaConf.create(manifest_of(cell_of(path))["config"]))
        model, dataset = settings.subject.model, settings.subject.dataset
        networks[model.name] = load_network(model, "cpu", image_shape=dataset.shape)
        here = dataset.split("evaluation").take(np.arange(arguments.images))
        if images is None:
            images = here.tensor(dataset.mean, dataset.std)
        elif not torch.equal(images, here.tensor(dataset.mean, dataset.std)):
            raise ProgipError("the two cells see other images; give two on the same data")
    if images is None or len(networks) != 2:
        raise ProgipError("the two cells have the same model; give cells of two networks")
    found = moved_maps(networks, images, arguments.errors, arguments.maps, arguments.seed)
    write_whole(arguments.out, lambda path: found.to_csv(path, index=False))
    print(tabulate(summary(found), headers="keys", showindex=False, disable_numparse=True))
    print(f"\nevery map and image: {arguments.out}")


def add(commands: Any) -> None:
    """Make both commands known."""
    sub = commands.add_parser("explain", help=explain_run.__doc__, description=explain_run.__doc__)
    sub.add_argument("folder", help="a cell's folder, the one with manifest.json, or a campaign's")
    sub.add_argument("run", type=int, help="the run_id of the row")
    sub.add_argument("--cell", default="", help="in a campaign: words of the cell's path")
    sub.add_argument("--layer", help="whose maps are ablated; default: the last with maps")
    sub.add_argument("--out", help="folder of the PNG; default: the cell's")
    sub.set_defaults(action=explain_run)

    about = explain_weight_errors.__doc__
    sub = commands.add_parser("explain-errors", help=about, description=about)
    sub.add_argument("one", type=Path, help="folder of a cell: its network and images")
    sub.add_argument("other", type=Path, help="of a cell of another network on the same images")
    sub.add_argument("--errors", type=int, default=2000, help="bit errors of each fault map")
    sub.add_argument("--maps", type=int, default=20, help="fault maps, the same in both networks")
    sub.add_argument("--images", type=int, default=20, help="the first of the evaluation images")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, default=Path("explained.csv"), help="CSV to write")
    sub.set_defaults(action=explain_weight_errors)
