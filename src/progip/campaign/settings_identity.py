"""What of a cell's identity its settings alone tell, before anything is loaded."""

from dataclasses import asdict
from typing import Any

from progip.campaign.settings import CellSettings, SubjectSettings
from progip.described import Described
from progip.protections.supervised import Supervised

#: options that say where something lies or how it was made, not what it is
_NOT_IDENTITY = {
    "weights", "sha256", "recipe", "groups",
    "folder", "train", "test", "url", "checksum", "checksum_train",
}  # fmt: skip


def identity(component: Any) -> dict[str, Any]:
    """The options of a model, dataset, method ... that can change a result.

    Where files lie is left out: what they hold is recorded by fingerprint instead.
    """
    options = {k: v for k, v in asdict(component).items() if k not in _NOT_IDENTITY}
    head = options.pop("head", None)  # of a model
    if head is not None:
        options["head"] = component.head.form()
    return {**options, **(component.content() if isinstance(component, Described) else {})}


def of_subject(settings: SubjectSettings) -> dict[str, Any]:
    """What golden results depend on, without the content of weights and data."""
    found: dict[str, Any] = {
        "model": identity(settings.model),
        "number_format": identity(settings.number_format),
        "dataset": identity(settings.dataset),
        "ood_dataset": identity(settings.ood_dataset),
        "ood_method": identity(settings.ood_method),
    }
    if settings.probes:
        found["probes"] = [probe.label for probe in settings.probes]
    if settings.correction is not None:
        found["correction"] = identity(settings.correction)
    return found


def of_execution(settings: CellSettings) -> dict[str, Any]:
    """What executed runs depend on beside their subject."""
    return {
        "population": settings.population,
        "fault_model": identity(settings.fault_model),
        "fault_pass": settings.fault_pass,
        "seed": settings.seed,
        "sampling": _sampling(settings),
        "condition": identity(settings.condition),
    }


def _sampling(settings: CellSettings) -> dict[str, Any]:
    """Options of the plan; folders without weighted termination are those of before there was."""
    options = identity(settings.sampling)
    if settings.sampling.roulette == 1:
        del options["roulette"], options["roulette_pilot"]
    return options


def of_judging(settings: CellSettings) -> dict[str, Any]:
    """What the rows of executed runs depend on besides."""
    protection = identity(settings.protection)
    if isinstance(settings.protection, Supervised):  # what its OOD set is, not where it lies
        ood = settings.protection.ood_set
        protection["ood"] = {} if ood is None else identity(ood)
    return {"protection": protection, "outcome": identity(settings.outcome)}
