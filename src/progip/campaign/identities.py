"""What the rows of a cell depend on: settings, data, weights and code, for its manifest."""

from typing import Any

from progip.campaign.settings import CellSettings
from progip.campaign.settings_identity import of_execution, of_judging
from progip.campaign.subject import Subject
from progip.protections.supervised import Supervised
from progip.storage.manifests import CODE
from progip.storage.source_code import code_identity


def execution_identity(settings: CellSettings, subject: Subject) -> dict[str, Any]:
    """What executed runs depend on, for their folder."""
    components = {
        "model": settings.subject.model,
        "number_format": settings.subject.number_format,
        "ood_method": subject.tested.method,
        "correction": settings.subject.correction,
        "fault_model": settings.fault_model,
        "sampling": settings.sampling,
        "condition": settings.condition,
    }
    return {
        **subject.tested.identity,
        **of_execution(settings),
        CODE: code_identity(components, subject.tested.layers),
    }


def cell_identity(settings: CellSettings, subject: Subject) -> dict[str, Any]:
    """What a cell's rows depend on: its runs, and the protection that judges them."""
    runs = execution_identity(settings, subject)
    judges = {"protection": settings.protection, "outcome": settings.outcome}
    judging = code_identity(judges)
    code = {part: {**runs[CODE][part], **judging[part]} for part in judging}
    found = {**runs, **of_judging(settings), CODE: code}
    learner = settings.protection
    if isinstance(learner, Supervised) and learner.ood_set is not None:
        found["learnt_ood_data"] = learner.ood_set.test_images().fingerprint()
    return found
