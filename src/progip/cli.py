"""``python -m progip``: what is done with a campaign before and after it runs."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tabulate import tabulate

from progip import __version__
from progip.analysis.tally import ESTIMANDS
from progip.analysis.weight_faults import agreement, by_fault, joined
from progip.campaign.replay import cell_of, manifest_of, replay, spread
from progip.commands import artefact, attack, explain, init, judge, reproduce, validate
from progip.config import build, cell_settings, composed, entry
from progip.datasets.base import Dataset
from progip.errors import ProgipError
from progip.fault_models.parameters import parameter_sites
from progip.launching.launched import program
from progip.models.base import Model
from progip.models.loading import load_network
from progip.protections.base import Protection
from progip.report.status import load_status
from progip.report.writing import write_report
from progip.running import run
from progip.statistics import METHODS
from progip.storage.fault_lists import read_list

BESIDE = "published figures of ProGIP beside ours, although networks, data or detectors are others"


def report(arguments: argparse.Namespace) -> None:
    """Print the tables of a campaign; write page, Markdown, LaTeX, figures and CSV."""
    print(
        write_report(
            arguments.folder,
            arguments.out,
            allow_mixed=arguments.allow_mixed,
            estimand=arguments.estimand,
            interval=arguments.interval.replace("-", "_"),
            beside=arguments.beside,
            outcome=arguments.outcome,
            fit=arguments.fit,
            confidence=arguments.confidence,
        )
    )


def show_status(arguments: argparse.Namespace) -> None:
    """Show how far a campaign is and what finishes it; exit code 1 if a cell failed."""
    found = load_status(Path(arguments.folder))
    print(found.text())
    if found.failed:
        sys.exit(1)


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


def train(arguments: argparse.Namespace) -> None:
    """Train a model by its recipe and write its weights."""
    from progip.models.training import train as train_model

    cfg = composed(arguments.overrides, primary="train")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    model = build(cfg.model, Model, "model")
    dataset = build(cfg.dataset, Dataset, "dataset")
    output = Path(arguments.output or f"outputs/weights/{model.name}-{dataset.name}.safetensors")
    trained = train_model(
        model,
        dataset.split("train"),
        dataset.test_images(),
        dataset.mean,
        dataset.std,
        output=output,
        resume=not arguments.restart,
        device="cpu" if cfg.device == "auto" else cfg.device,
        seed=cfg.seed,
    )
    print(f"{trained.path}\nsha256 {trained.sha256}")
    read = ("dataset", "recipe", "model.weights", "model.recipe", "model.head.embeddings")
    same = [word for word in arguments.overrides if not word.startswith(read)]
    print(f"use it: {program()} {shlex.join([*same, f'model.weights={trained.path}'])}")


def runtime(arguments: argparse.Namespace) -> None:
    """Time protections where they are deployed, in pairs with the unprotected detector."""
    from progip.deploy.runtime import Effort, measure_runtime, write_runtime
    from progip.report.runtime_table import write_table

    effort = Effort(
        seconds=arguments.seconds,
        repetitions=arguments.repetitions,
        threads=arguments.threads,
        pin=not arguments.no_pin,
    )
    for method in arguments.methods:
        overrides = [f"ood_method={method}", *arguments.overrides]
        # the subject alone: which protections watch it comes after
        cfg = composed([*overrides, "protection=none"], campaign=arguments.campaign)
        protections = [
            build(
                composed(
                    [*overrides, f"protection={name}"], campaign=arguments.campaign
                ).protection,
                Protection,
                "protection",
            )
            for name in arguments.protections
        ]
        for batch in arguments.batches:
            measured = measure_runtime(cell_settings(cfg).subject, protections, batch, effort)
            print(write_runtime(arguments.out, measured))
    print(f"\n{write_table(arguments.out, arguments.beside)}")


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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="progip", description=__doc__)
    top.add_argument("--version", action="version", version=f"progip {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("run", help="Run one cell of a campaign, or with -m a sweep of cells.")
    sub = commands.add_parser("report", help=report.__doc__, description=report.__doc__)
    sub.add_argument("folder", help="a campaign's folder, e.g. outputs/campaign")
    sub.add_argument("--out", help="where the files go; default FOLDER/report")
    sub.add_argument(
        "--allow-mixed", action="store_true", help="merge cells of different seeds, weights or data"
    )
    sub.add_argument(
        "--estimand",
        choices=ESTIMANDS,
        help="the population that rates describe; default: as the fault model hits layers",
    )
    sub.add_argument(
        "--interval",
        choices=[name.replace("_", "-") for name in METHODS],
        default="wilson",
        help="clopper-pearson: exact and wider, for certification; default: wilson",
    )
    sub.add_argument("--beside", action="store_true", help=BESIDE)
    sub.add_argument(
        "--outcome", help="name of the outcome to report, where cells were judged by several"
    )
    sub.add_argument(
        "--fit",
        metavar="RATES.yaml",
        help="raw failure rates per bit (docs/fit.md); adds failures in time, diagnostic coverage",
    )
    sub.add_argument(
        "--confidence", type=float, default=0.95, help="of the one-sided limits of --fit; .95"
    )
    sub.set_defaults(action=report)

    sub = commands.add_parser("status", help=show_status.__doc__, description=show_status.__doc__)
    sub.add_argument("folder", help="a campaign's folder; it may be running, on any machine")
    sub.set_defaults(action=show_status)

    sub = commands.add_parser("replay", help=replay_run.__doc__, description=replay_run.__doc__)
    sub.add_argument("folder", help="a cell's folder, the one with manifest.json, or a campaign's")
    sub.add_argument("run", type=int, help="the run_id of the row")
    sub.add_argument(
        "--cell", default="", help="in a campaign: words of the cell's path, as backward-id,progip"
    )
    sub.set_defaults(action=replay_run)

    sub = commands.add_parser("train", help=train.__doc__, description=train.__doc__)
    sub.add_argument(
        "overrides",
        nargs="*",
        help="as for `progip run`: model=resnet20 dataset=cifar10; recipe=fast: on a CPU in hours",
    )
    sub.add_argument("--output", help="the .safetensors file to write")
    sub.add_argument("--restart", action="store_true", help="ignore an earlier checkpoint")
    sub.set_defaults(action=train)

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
    sub = commands.add_parser("runtime", help=runtime.__doc__, description=runtime.__doc__)
    sub.add_argument(
        "overrides", nargs="*", help="as for `progip run`: model=resnet20 dataset=cifar10"
    )
    sub.add_argument("--campaign", help="start from campaigns/NAME.yaml, without its sweep")
    sub.add_argument("--methods", nargs="+", default=["odin", "mahalanobis"], metavar="METHOD")
    sub.add_argument("--protections", nargs="+", default=["progip", "ranger"], metavar="NAME")
    sub.add_argument("--batches", nargs="+", type=int, default=[1, 32], metavar="IMAGES")
    sub.add_argument("--seconds", type=float, default=60, help="for each method and batch size")
    sub.add_argument("--repetitions", type=int, default=4000, help="at most, of each protection")
    sub.add_argument("--threads", type=int, default=1, help="of torch")
    sub.add_argument("--no-pin", action="store_true", help="let the system move the process about")
    sub.add_argument("--out", default="outputs/runtime", help="a folder, may be a campaign's")
    sub.add_argument("--beside", action="store_true", help=BESIDE)
    sub.set_defaults(action=runtime)
    for command in (init, judge, validate, explain, attack, artefact, reproduce):
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
