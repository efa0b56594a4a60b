"""``python -m progip students``: robust students, trained together, cut out of one network."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tabulate import tabulate

from progip.attacks.base import Attack
from progip.config import build, composed
from progip.datasets.base import Dataset
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.dynamic.network import cost
from progip.models.dynamic.space import Architecture
from progip.models.dynamic.student import write_student
from progip.models.loading import seeded, usable_device
from progip.statistics import Rate
from progip.students.cutting import Cutter
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
    dataset = build(cfg.dataset, Dataset, "dataset")
    name = f"{training.name}_{training.procedure.name}{'' if training.progressive else '_uniform'}"
    folder = Path(arguments.out or f"outputs/students/{name}")
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(
        training, dataset.split("train"), list(dataset.mean), list(dataset.std),
        folder, dataset.classes, usable_device(auto if cfg.device == "auto" else cfg.device),
        cfg.seed, build(cfg.model, Model, "model") if training.teacher.source == "model" else None,
    )  # fmt: skip
    return Prepared(cfg, folder, training, dataset, build(cfg.attack, Attack, "attack"), trainer)


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


def keep(
    step: Prepared,
    cutter: Cutter,
    name: str,
    architecture: Architecture,
    network: torch.nn.Module | None = None,
) -> dict[str, Any]:
    """Cut out (unless a network is given), write and measure a student; a row of a table."""
    network = cutter.cut(architecture) if network is None else network
    images = step.dataset.split("evaluation")
    found = cutter.measured(network, images, step.attack, step.seed)
    macs, parameters = cost(
        step.training.space, architecture, step.dataset.classes, images.pixels.shape[1:]
    )
    path = step.folder / "students" / f"{name}.safetensors"
    write_student(network, step.training.space, architecture, path)
    return {
        "student": name,
        "MACs": f"{macs:,}",
        "parameters": f"{parameters:,}",
        "images": found.clean.n,
        "accuracy": shown(found.clean),
        f"under {step.attack.name}, {step.attack.budget:g}/255": shown(found.robust),
        "file": str(path),
    }


def shown(rate: Rate) -> str:
    """A rate with its interval, in %."""
    return f"{100 * rate.estimate:.1f} ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def show(rows: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    print(tabulate(rows, headers="keys", disable_numparse=True))
    print("\nin %, 95 % Wilson intervals; use one: model=student model.weights=FILE")


def add(commands: Any) -> None:
    """Make the command known."""
    top = commands.add_parser("students", help=__doc__.partition(": ")[2], description=__doc__)
    steps = top.add_subparsers(required=True, metavar="STEP")
    for function in (train, extract):
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
        else:
            what = "largest, smallest, random:SEED or an architecture as JSON"
            sub.add_argument("--student", required=True, help=what)
            sub.add_argument("--name", help="of its file; default: what --student says")
