"""Every member of every group holds its contract; a component that does not is told how."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decomposed_networks import decomposed_network
from tiny_networks import balanced_network

from progip.conditions.base import Condition, Golden
from progip.config import build, composed
from progip.contracts import (
    BrokenContract,
    check_condition,
    check_fault_model,
    check_number_format,
    check_ood_method,
    check_outcome,
    check_probe,
    check_protection,
)
from progip.contracts.fault_model import PARAMETERS, SITES
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel
from progip.fault_models.metadata_bit import InRegisters
from progip.number_formats.base import NumberFormat
from progip.number_formats.integer import Integer
from progip.ood_methods.base import OODMethod
from progip.outcomes.base import Context, Outcome, Runs
from progip.outcomes.ood_verdict import OODVerdict
from progip.outcomes.sdc import SDC
from progip.probes import Observation, Probe, optional_probes
from progip.probes.largest_logit import LargestLogit
from progip.protections.base import Protection
from progip.protections.correcting import Correcting
from progip.protections.supervised import FAULT, Supervised
from progip.storage.whole_files import Checkpoint

CONF = Path(__file__).resolve().parent.parent / "conf"


def members(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def member(group: str, name: str, base: type, *overrides: str) -> Any:
    more = (
        ["ood_dataset=none", *overrides]
        if (group, name) == ("ood_method", "none")
        else list(overrides)
    )
    return build(composed([f"{group}={name}", *more], CONF)[group], base, group)


@pytest.mark.parametrize("name", members("ood_method"))
def test_ood_methods(name: str) -> None:
    method = member("ood_method", name, OODMethod)
    if hasattr(method, "std"):
        method.std = [0.5] * 3  # the contract's images have three channels
    if name in ("generalised_odin", "openmax"):  # these need more of a network and its images
        images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        network = balanced_network(images) if name == "openmax" else decomposed_network()
        check_ood_method(method, network, images, network(images).argmax(1))
    else:
        check_ood_method(method)


@pytest.mark.parametrize("name", members("protection"))
def test_protections(name: str) -> None:
    protection = member("protection", name, Protection)
    if isinstance(protection, Correcting):
        with pytest.raises(BrokenContract, match="corrects"):
            check_protection(protection)
    elif isinstance(protection, Supervised):
        with pytest.raises(ProgipError, match="has learnt nothing yet"):
            check_protection(protection)
        runs = {"layer_traces": np.random.default_rng(0).normal(0, 1, (90, 3)).astype(np.float32)}
        labels = np.arange(90) % 3  # clean, OOD, fault
        protection.learn(runs, labels, labels == FAULT, Checkpoint(None))
        check_protection(protection)
    else:
        check_protection(protection)


@pytest.mark.parametrize("name", members("fault_model"))
def test_fault_models(name: str) -> None:
    if name == "listed":  # needs a list: tests/campaign/test_faults_in_memory.py
        pytest.skip("its faults are those of a file")
    model = member("fault_model", name, FaultModel)
    if model.many:
        model.rate = 0.01
    code = Integer(name="int8", width=8, scale=1.0)
    sites = SITES if model.scope == "row" else PARAMETERS
    held = [replace(site, format=code) for site in sites]
    check_fault_model(model, held if isinstance(model, InRegisters) else None)


def groups_of(folder: Path) -> Path:
    """A file of eight classes in five groups and two supergroups."""
    path = folder / "groups.csv"
    rows = [f"{i},{group},{'AB'[group // 3]}" for i, group in enumerate([0, 0, 1, 2, 3, 3, 4, 4])]
    path.write_text("\n".join(["class_index,group,supergroup", *rows]))
    return path


@pytest.mark.parametrize("name", members("outcome"))
def test_outcomes(name: str, tmp_path: Path) -> None:
    more = [f"outcome.groups={groups_of(tmp_path)}"] if name == "scm" else []
    check_outcome(member("outcome", name, Outcome, *more), classes=8)


@pytest.mark.parametrize("name", members("condition"))
def test_conditions(name: str, tmp_path: Path) -> None:
    more = [f"condition.groups={groups_of(tmp_path)}"] if "scm" in name else []
    check_condition(member("condition", name, Condition, *more), classes=8)


class Best(Condition):
    """A condition that looks at the other images, too."""

    needs = ("score",)

    def holds(self, golden: Golden) -> np.ndarray:
        return np.arange(len(golden["score"])) < 5


def test_a_broken_condition() -> None:
    with pytest.raises(BrokenContract, match="judges an image by the images beside it"):
        check_condition(Best(name="best"))


@pytest.mark.parametrize("name", ["all", "correct", "misclassified"])
def test_outcomes_with_options(name: str) -> None:
    check_outcome(SDC(name="sdc", among=name, top_five=True, confidence=[10, 20]))


@pytest.mark.parametrize("name", members("number_format"))
def test_number_formats(name: str) -> None:
    number_format = member("number_format", name, NumberFormat)
    if isinstance(number_format, Integer):
        number_format = number_format.bind(3.0)
    check_number_format(number_format)


@pytest.mark.parametrize("name", sorted(optional_probes()))
def test_probes(name: str) -> None:
    check_probe(optional_probes()[name]())


class Leaky(OODVerdict):
    """An outcome that judges a run by the others."""

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        found = super().judge(runs, context)
        return {**found, "class_changed": np.roll(found["class_changed"], 1)}


class Baseless(OODVerdict):
    """An outcome whose failures are not among the runs that can fail."""

    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        found = super().judge(runs, context)
        nothing = np.zeros_like(found["originally_correct"])
        return {**found, "originally_correct": nothing}


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Leaky, "judges class_changed of a run by the runs beside it"),
        (Baseless, "sets detection_failure without originally_correct"),
    ],
)
def test_broken_outcomes(outcome: type[Outcome], why: str) -> None:
    with pytest.raises(BrokenContract, match=why):
        check_outcome(outcome(name="ood_verdict"))


class Neighbour(LargestLogit):
    """A probe that takes the value of the row beside it."""

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"largest_logit": np.roll(super().columns(seen, count)["largest_logit"], 1)}


class Double(LargestLogit):
    """A probe that gives another type than it declares."""

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"largest_logit": super().columns(seen, count)["largest_logit"].astype(float)}


@pytest.mark.parametrize(
    ("probe", "why"), [(Neighbour, "of more rows|beside it"), (Double, "float32")]
)
def test_broken_probes(probe: type[Probe], why: str) -> None:
    with pytest.raises(BrokenContract, match=why):
        check_probe(probe())
