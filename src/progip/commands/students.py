"""``python -m progip students``: robust students, trained together, cut out of one network."""

import argparse
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from tabulate import tabulate

from progip.analysis.manifests import find_cells
from progip.attacks.base import Attack
from progip.attacks.measuring import Robustness
from progip.config import build, composed
from progip.datasets.base import Dataset
from progip.devices import usable_device
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.dynamic.network import Cost
from progip.models.dynamic.space import Architecture
from progip.models.dynamic.student import write_student
from progip.models.loading import seeded
from progip.report.figures import robust_students
from progip.report.figures.pareto import COLUMNS, DEAR, FOUND, FRONT, SAMPLED, pareto_figure
from progip.statistics import Rate
from progip.storage.whole_files import write_whole
from progip.students.cutting import Cutter
from progip.students.search import TARGETS, Predictor, measure, pareto, require_pymoo
from progip.students.stages import Training
from progip.students.training import Trainer


@dataclass
class Prepared:
    """What every step needs of a composed configuration."""

    cfg: DictConfig
    folder: Path
    training: Training
    dataset: Dataset
    attack: Attack
    trainer: Trainer

    @cached_property
    def cost(self) -> Cost:
        """Of the students."""
        return Cost(self.training.space, self.dataset.classes, self.dataset.shape)

    @property
    def seed(self) -> int:
        return int(self.cfg.seed)

    def cutter(self, resume: bool = True) -> Cutter:
        """Of the trained network, which is trained first where it is not."""
        return Cutter(
            self.trainer.train(resume),
            self.dataset.split("train"),
            list(self.dataset.mean),
            list(self.dataset.std),
            calibration=self.training.calibration,
            batch_size=self.training.batch_size,
            device=self.trainer.place,
        )


def prepared(arguments: argparse.Namespace) -> Prepared:
    """Compose and build, without training anything."""
    cfg = composed(arguments.overrides, primary="students")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    training = build(cfg.students, Training, "students")
    attack = build(cfg.attack, Attack, "attack")
    attack.require_library()  # not after hours of training
    dataset = build(cfg.dataset, Dataset, "dataset")
    name = f"{training.name}_{training.procedure.name}{'' if training.progressive else '_uniform'}"
    folder = Path(arguments.out or f"outputs/students/{name}")
    trainer = Trainer(
        training, dataset.split("train"), list(dataset.mean), list(dataset.std),
        folder, dataset.classes, usable_device(cfg.device),
        cfg.seed, build(cfg.model, Model, "model") if training.teacher.source == "model" else None,
    )  # fmt: skip
    return Prepared(cfg, folder, training, dataset, attack, trainer)


def train(arguments: argparse.Namespace) -> None:
    """Train teacher and stages; cut out and measure the largest and the smallest student."""
    step = prepared(arguments)
    cutter = step.cutter(not arguments.restart)
    space = step.training.space
    chosen = {"largest": space.largest(), "smallest": space.smallest()}
    rows = []
    if step.training.teacher.source == "largest":
        network = step.trainer.teacher().network.student(space.largest())  # type: ignore[union-attr, operator]
        rows.append(keep(step, cutter, "teacher", space.largest(), network))
    rows += [keep(step, cutter, name, architecture) for name, architecture in chosen.items()]
    show(rows)


def extract(arguments: argparse.Namespace) -> None:
    """Cut a student out of the trained network, measure it and write its file."""
    step = prepared(arguments)
    space = step.training.space
    if arguments.student.startswith("random:"):
        with seeded(arguments.student):
            architecture = space.sample()
    elif arguments.student in ("largest", "smallest"):
        architecture = getattr(space, arguments.student)()
    else:
        try:
            architecture = json.loads(arguments.student)
        except ValueError as problem:
            raise ProgipError(
                f"--student {arguments.student}: give largest, smallest, random:SEED, or an "
                "architecture as JSON"
            ) from problem
        space.check(architecture, "--student")
    name = arguments.name or arguments.student.replace(":", "_")
    if not name.replace("_", "").isalnum():
        raise ProgipError("give the student a name for its file: --name NAME, letters and digits")
    show([keep(step, step.cutter(), name, architecture)])


def search(arguments: argparse.Namespace) -> None:
    """Measure random students, fit a predictor, find cheap ones by NSGA-II, cut these out."""
    require_pymoo()
    step = prepared(arguments)
    cutter, space, options = step.cutter(), step.training.space, step.training.search
    folder = step.folder / "search"
    # images that nothing was trained on, and that no result is of
    images = step.dataset.split("calibration")
    measured = measure(cutter, images, step.attack, options.samples, folder, step.seed)
    predictor = Predictor(space, measured, options, step.seed)
    quality = [{"predicted": name, **values} for name, values in predictor.quality.items()]
    print(tabulate(quality, headers="keys", floatfmt=".3f"))
    front = pareto(space, predictor, step.cost, options, step.seed)
    places = sorted({*np.linspace(0, len(front) - 1, options.keep).astype(int).tolist()})
    print(f"\n{len(front)} students on the predicted front, {len(places)} of them cut out:\n")
    found = [keep(step, cutter, f"found_{n}", front[i][0]) for n, i in enumerate(places, 1)]
    show(found)
    content = {
        "predictor": predictor.quality,
        "search": asdict(options),
        "front": [{"architecture": a, "predicted": worth.tolist()} for a, worth in front],
    }
    write_whole(folder / "search.json", lambda path: path.write_text(json.dumps(content, indent=1)))
    cheap = [options.allows(*step.cost(json.loads(a))) for a in measured["architecture"]]
    points = [
        {"kind": SAMPLED if within else DEAR, "accuracy": a, "robust": r}
        for within, (a, r) in zip(cheap, measured[TARGETS].to_numpy(), strict=True)
    ]
    points += [{"kind": FRONT, "accuracy": w[0], "robust": w[1]} for _, w in front]
    points += [{"kind": FOUND, **one.rates()} for one in found]
    figure = pareto_figure(pd.DataFrame(points, columns=COLUMNS))
    print("\n".join(map(str, figure.write(folder))))


@dataclass(frozen=True)
class Kept:
    """A student that was cut out, written and measured."""

    name: str
    path: Path
    macs: int
    parameters: int
    attack: Attack
    found: Robustness

    def row(self) -> dict[str, Any]:
        """Of a table."""
        return {
            "student": self.name,
            "MACs": f"{self.macs:,}",
            "parameters": f"{self.parameters:,}",
            "images": self.found.clean.n,
            "accuracy": shown(self.found.clean),
            f"under {self.attack.name}, {self.attack.budget:g}/255": shown(self.found.robust),
            "file": str(self.path),
        }

    def rates(self) -> dict[str, float]:
        """Of a figure."""
        both = {"accuracy": self.found.clean, "robust": self.found.robust}
        return {
            f"{name}{end}": value
            for name, rate in both.items()
            for end, value in (("", rate.estimate), ("_low", rate.low), ("_high", rate.high))
        }


def keep(
    step: Prepared,
    cutter: Cutter,
    name: str,
    architecture: Architecture,
    network: torch.nn.Module | None = None,
) -> Kept:
    """Cut out (unless a network is given), write and measure a student."""
    network = cutter.cut(architecture) if network is None else network
    images = step.dataset.split("evaluation")
    found = cutter.measured(network, images, step.attack, step.seed)
    macs, parameters = step.cost(architecture)
    path = step.folder / "students" / f"{name}.safetensors"
    write_student(network, step.training.space, architecture, path)
    return Kept(name, path, macs, parameters, step.attack, found)


def table(arguments: argparse.Namespace) -> None:
    """Print accuracy, robust accuracy and SDC of students under faults; write the figure."""
    data = robust_students.numbers(tuple(find_cells(arguments.folder)))
    print(tabulate(robust_students.table(data), headers="keys", showindex=False))
    print(
        "\naccuracy on clean and on attacked images, SDC on clean ones, by protection; in %, 95 % "
        "intervals over fault maps and rounds"
    )
    figure = robust_students.robust_students(data)
    print("\n".join(map(str, figure.write(arguments.folder / "report"))))


def shown(rate: Rate) -> str:
    """A rate with its interval, in %."""
    return f"{100 * rate.estimate:.1f} ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def show(kept: list[Kept]) -> None:
    """Print what was measured."""
    print(tabulate([one.row() for one in kept], headers="keys", disable_numparse=True))
    print("\nin %, 95 % Wilson intervals; use one: model=student model.weights=FILE")


def add(commands: Any) -> None:
    """Make the command known."""
    what = "Train robust students together as one network, search them, cut them out."
    top = commands.add_parser("students", help=what, description=what)
    steps = top.add_subparsers(required=True, metavar="STEP")
    sub = steps.add_parser("table", help=table.__doc__, description=table.__doc__)
    sub.add_argument("folder", type=Path, help="of the campaign: outputs/robust_students")
    sub.set_defaults(action=table)
    for function in (train, extract, search):
        sub = steps.add_parser(
            function.__name__, help=function.__doc__, description=function.__doc__
        )
        sub.add_argument(
            "overrides",
            nargs="*",
            help="students=digits or cifar10, cifar10_mobilenet; students.procedure=rslad, ard, "
            "trades; students.progressive=false; dataset=, attack=, device= as for `progip attack`",
        )
        sub.add_argument("--out", help="folder; default outputs/students/PRESET_PROCEDURE")
        sub.set_defaults(action=function)
        if function is train:
            sub.add_argument("--restart", action="store_true", help="begin anew")
        elif function is extract:
            what = "largest, smallest, random:SEED or an architecture as JSON"
            sub.add_argument("--student", required=True, help=what)
            sub.add_argument("--name", help="of its file; default: what --student says")
