"""What a cell's ``manifest.json`` says: what its rows are, and what they were made with."""

import hashlib
import json
from pathlib import Path
from typing import Any

from progip import records
from progip.campaign.columns import result_parts
from progip.campaign.judge import golden_evidence
from progip.campaign.planning import Planner
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.campaign.training import learnt_from
from progip.described import Described, account
from progip.fault_models.base import SUPER, Site
from progip.probes.needs import shown_by
from progip.storage import provenance, store


def cell_manifest(
    settings: CellSettings,
    subject: Subject,
    planner: Planner,
    *,
    identity: dict[str, Any],
    thresholds: dict[str, float],
    config: dict[str, Any],
    planned: int,
) -> dict[str, Any]:
    """The manifest of a cell's folder.

    Args:
        identity: what its rows depend on.
        thresholds: of the protection.
        config: the resolved configuration.
        planned: runs of the cell.
    """
    evaluation = golden_evidence(subject.golden.evaluation(settings.population))
    clean = settings.protection.judge(evaluation, thresholds)
    layers = planner.space.sites
    made = {
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "hardware": provenance.hardware(subject.tested.device),
    }
    return {
        "kind": "cell",
        "schema_version": records.SCHEMA_VERSION,
        "cell": settings.names,
        "runs": planned,
        "seed": settings.seed,
        "identity": identity,
        "config_hash": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "config": config,
        "outcome": settings.outcome.declared.to_json(),
        "number_format": _codes(settings.subject.number_format.name, layers),
        "sampling": planner.describe(),
        "thresholds": {"ood": subject.thresholds.ood, **thresholds},
        "clean": {"images": len(clean.alarm), "alarms": int(clean.alarm.sum())},
        "learnt": learnt_from(settings, subject),
        "condition_images": len(planner.images),
        "runs_per_map": planner.round if settings.fault_model.scope == "round" else None,
        "clean_outcome": settings.outcome.clean(planner.golden),
        "base_metrics": subject.thresholds.base_metrics,
        "base_metrics_unperturbed": subject.thresholds.unperturbed_metrics,
        "weights_sha256": identity["weights_sha256"],
        "data": identity["data"],
        **made,
        "made_by": _contributors(settings.folder, made),
        "methods": account(_parts(settings)),
        "fits": _fits(settings),
        "watched": subject.watched(settings.protection),
        "coverage": subject.survey.coverage(settings.fault_pass, layers),
        "columns": records.described(result_parts(settings)),
        "layers": [_layer(site, settings, subject) for site in layers],
    }


def _fits(settings: CellSettings) -> dict[str, list[str]]:
    """Which passes the method has, what it and the probes show, what the protection looks at.

    A report can tell by it a cell that is missing from one that cannot be.
    """
    method, probes = settings.subject.ood_method, settings.subject.probes
    return {
        "passes": list(method.passes),
        "shown": shown_by(method.evidence, probes),
        "watches": list(settings.protection.watches),
    }


def _codes(name: str, sites: list[Site]) -> dict[str, Any]:
    """What faults hit: the bits of a code, or of a register, and what they mean."""
    described = sites[0].format.described()
    if sites[0].of_metadata:
        described |= {"fields": described["metadata"], "bits": sites[0].bits}
    return {**described, "name": name}


def _layer(site: Site, settings: CellSettings, subject: Subject) -> dict[str, Any]:
    about: dict[str, Any] = {
        "layer": site.layer,
        "call": site.call,
        "type": site.kind,
        "neurons": site.neurons,
        "macs": site.macs,
    }
    if site.parameter:
        about |= {"parameter": site.parameter, "shape": list(site.shape)}
    if SUPER[0] in settings.fault_model.columns:
        about["super_layer"] = (site.layer, 0 if site.parameter else site.call) in (
            subject.super_layers
        )
    return about


def execution_manifest(identity: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the folder of executed runs, which depend on ``identity``."""
    return {
        "kind": "execution",
        "schema_version": records.SCHEMA_VERSION,
        "identity": identity,
    }


def _parts(settings: CellSettings) -> dict[str, Described]:
    """The components that say what they do."""
    return {
        "number_format": settings.subject.number_format,
        "fault_model": settings.fault_model,
        "ood_method": settings.subject.ood_method,
        "outcome": settings.outcome,
        "condition": settings.condition,
        "protection": settings.protection,
        "sampling": settings.sampling,
        "stopping": settings.stopping,
    }


def _contributors(folder: Path, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Every state of code and machine that added rows; a resumed cell may have several."""
    before = (store.read_json(folder / store.MANIFEST) or {}).get("made_by", [])
    return before if made in before else [*before, made]
