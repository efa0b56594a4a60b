"""``progip validate``: what a campaign would do and what it lacks, before anything is executed."""

import argparse
import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from progip.campaign.settings import CellSettings, SubjectSettings
from progip.campaign.sizing import known_speed
from progip.campaign.subject import Subject, prepare
from progip.config import cell_settings
from progip.config.composing import composed, sweep_of_campaign
from progip.config.entry import explain, is_users
from progip.engine.sites import Survey, survey
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.parameters import parameter_sites
from progip.sampling.base import FaultSpace
from progip.storage import store
from progip.storage.progress import duration

#: batches of training images that a detector is fitted to, to see what a fault can hit
_BATCHES = 8


@dataclass(frozen=True)
class Found:
    """One cell that would run: what it executes, and what is there already."""

    settings: CellSettings
    runs: int
    layers: int
    values: int
    done: int

    @property
    def seconds(self) -> float | None:
        """That the rest takes here by what was measured; None where nothing was."""
        speed = known_speed(self.settings.execution_key)
        left = max(self.runs - self.done, 0)
        if speed is None:
            return None if left else 0.0
        return speed.start + left * speed.per_run if left else 0.0


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("validate", help=validate.__doc__, description=validate.__doc__)
    sub.add_argument("campaign", help="campaigns/NAME.yaml; 'config' is conf/config.yaml")
    sub.add_argument("overrides", nargs="*", help="as for `progip run`, sweeps too: protection=a,b")
    sub.set_defaults(action=validate)


def validate(arguments: argparse.Namespace) -> None:
    """Show a campaign's cells, sites, size, cost and what is missing, without running it."""
    campaign = None if arguments.campaign == "config" else arguments.campaign
    jobs = sweep_of_campaign(arguments.overrides, campaign)
    found: list[Found] = []
    missing: dict[str, int] = {}
    for job in jobs:
        try:
            found.append(_look(cell_settings(composed(job, campaign=campaign))))
        except Exception as error:
            if not is_users(error):
                raise
            said = explain(error)
            missing[said] = missing.get(said, 0) + 1
    executions = {cell.settings.execution_folder: cell for cell in found}
    if found:
        print(_table(list(executions.values())))
        print(
            f"\n{len(found)} cells, which share {len(executions)} executions; {_cost(executions)}"
        )
    if missing:
        lines = "\n".join(f"  {count} cells: {said}" for said, count in missing.items())
        raise ProgipError(f"{sum(missing.values())} of {len(jobs)} cells cannot run:\n{lines}")
    print("nothing is missing; nothing was executed")


def _look(settings: CellSettings) -> Found:
    subject = prepare(settings.subject)
    sites = _sites(settings, subject)
    images = len(subject.tested.images[settings.population])
    model = settings.fault_model
    rounds = model.rows_per_map(images)
    space = FaultSpace(model, sites, np.ones(1 if model.scope == "round" else images, dtype=bool))
    maps = model.maps() or settings.sampling.size(space) or settings.sizing.maps
    runs = settings.sizing.size(
        settings.runs if maps is None else maps * rounds, space.size, rounds
    )
    shards = store.named_shards(settings.execution_folder)
    done = sum(min(shard.stop, runs) - shard.start for shard in shards if shard.start < runs)
    return Found(settings, runs, len(sites), sum(site.neurons for site in sites), done)


def _sites(settings: CellSettings, subject: Subject) -> list[Site]:
    """What faults can hit, seen with a detector that is fitted to a few images."""
    seen = _survey(settings.subject, subject)
    if settings.fault_model.scope == "round":
        return settings.fault_model.select(parameter_sites(subject.tested.network, {}))
    return settings.fault_model.select(seen.sites[settings.fault_pass])


_surveys: dict[int, Survey] = {}


def _survey(settings: SubjectSettings, subject: Subject) -> Survey:
    if id(subject) not in _surveys:
        tested = subject.tested
        method = copy.deepcopy(settings.ood_method)
        try:
            method.fit(tested.network, islice(tested.training_batches(), _BATCHES))
        except (ValueError, RuntimeError, ProgipError):  # classes that these images do not show
            method.fit(tested.network, tested.training_batches())
        _surveys.clear()
        _surveys[id(subject)] = survey(tested.network, method, tested.images["id"][:3])
    return _surveys[id(subject)]


def _table(cells: list[Found]) -> str:
    headers = ["executed cell", "runs", "done", "layers hit", "values hit", "time left here"]
    rows = []
    for cell in cells:
        seconds = cell.seconds
        rows.append(
            [
                cell.settings.execution_key,
                f"{cell.runs:,}",
                f"{cell.done:,}",
                cell.layers,
                f"{cell.values:,}",
                "not known" if seconds is None else duration(seconds),
            ]
        )
    align = ("left", *["right"] * 5)
    return tabulate(rows, headers, tablefmt="simple", colalign=align)


def _cost(executions: dict[Path, Found]) -> str:
    left = sum(max(cell.runs - cell.done, 0) for cell in executions.values())
    times = [cell.seconds for cell in executions.values()]
    unknown = sum(seconds is None for seconds in times)
    text = f"{left:,} runs to execute"
    if unknown < len(times):
        text += f", about {duration(sum(s for s in times if s is not None))} here in one process"
    if unknown:
        text += f"; {unknown} of them were never timed on this machine: a few runs of one tell"
    return text
