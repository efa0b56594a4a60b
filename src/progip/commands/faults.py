"""``progip import-faults``, ``export-faults``, ``compare-faults``: lists of weight faults."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from progip.analysis.weight_faults import agreement, by_fault, joined
from progip.campaign.replay import cell_of
from progip.config import cell_settings, composed
from progip.fault_models.parameters import parameter_sites
from progip.launching.launched import program
from progip.models.loading import load_network
from progip.storage.fault_lists import read_list


def add(commands: Any) -> None:
    """Make the commands known."""
    sub = commands.add_parser(
        "import-faults", help=import_faults.__doc__, description=import_faults.__doc__
    )
    sub.add_argument("file", type=Path, help="CSV with Layer, TensorIndex and Bit")
    sub.add_argument("overrides", nargs="*", help="the network and its data: model=resnet20 ...")
    sub.set_defaults(action=import_faults)
    sub = commands.add_parser(
        "export-faults", help=export_faults.__doc__, description=export_faults.__doc__
    )
    sub.add_argument("folder", type=Path, help="of a campaign, or of a cell")
    sub.add_argument("out", type=Path, help="CSV to write")
    sub.add_argument("--cell", default="", help="words of the cell's path, where there are several")
    sub.set_defaults(action=export_faults)
    sub = commands.add_parser(
        "compare-faults", help=compare_faults.__doc__, description=compare_faults.__doc__
    )
    sub.add_argument("ours", type=Path, help="what export-faults wrote")
    sub.add_argument("theirs", type=Path, help="what another injector wrote")
    sub.set_defaults(action=compare_faults)


def import_faults(arguments: argparse.Namespace) -> None:
    """Check a list of single weight faults against a network, and print what executes it."""
    given = list(arguments.overrides)
    wanted = [
        *("fault_model=listed", f"fault_model.file={arguments.file}", "pass=all", "population=id"),
        *("outcome=criticality", "probes=[logits_digest]", "protection=none"),
        *("ood_method=none", "ood_dataset=none"),
    ]
    settings = cell_settings(composed([*wanted, *given]))
    subject = settings.subject
    faults = read_list(arguments.file)
    faults.check_bits(subject.number_format.bits, subject.number_format.name)
    network = load_network(subject.model, "cpu", image_shape=subject.dataset.shape)
    model = settings.fault_model
    chosen = model.select(parameter_sites(network, {}))
    images = model.rows_per_map(len(subject.dataset.split("evaluation")))
    runs = images * len(faults.layer)
    print(
        f"{len(faults.layer):,} faults in {len(chosen)} parameters of {subject.model.name}, each "
        f"on {images:,} images: {runs:,} runs. To execute them:\n\n  {program()} "
        + " ".join(shlex.quote(word) for word in ["name=faults", *wanted, *given])
        + f" sizing.max_runs={runs}\n"
    )


def export_faults(arguments: argparse.Namespace) -> None:
    """Write what each single weight fault of a cell did to all images, as a list of faults."""
    found = by_fault(cell_of(arguments.folder, arguments.cell))
    found.to_csv(arguments.out, index=False)
    print(f"{len(found):,} faults written to {arguments.out}")


def compare_faults(arguments: argparse.Namespace) -> None:
    """Compare two results of the same weight faults, fault by fault; exit code 1 if they differ."""
    table = agreement(joined(arguments.ours, arguments.theirs))
    for name in ("critical_a", "critical_b"):
        table[name] = [f"{100 * share:.4f} %" for share in table[name]]
    print(tabulate(table, headers="keys", showindex=False, disable_numparse=True))
    if int(table["within"].iloc[-1]) < int(table["faults"].iloc[-1]):
        sys.exit(1)
