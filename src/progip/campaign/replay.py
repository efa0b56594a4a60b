"""Re-executes one stored row from its own columns, by the reference executor."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from progip import records
from progip.campaign.columns import execution_schema, planned_columns, result_schema
from progip.campaign.execution import observed_table, reference_executor
from progip.campaign.identities import cell_identity
from progip.campaign.judge import evidence_of, golden_evidence, judge
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject, prepare
from progip.campaign.training import learn
from progip.engine.layer_trace import LayerDifference, trace_run
from progip.errors import ProgipError
from progip.passes import place_of
from progip.storage import store
from progip.storage.manifests import check_same_identity, code_differences, read_manifest
from progip.storage.reading import read_shard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """What a replay gave, and the stored row.

    Attributes:
        stored: the row, of ``columns.result_schema``.
        replayed: the same columns, executed again.
        layers: what each layer's tensor did against golden, in order of execution.
    """

    stored: pa.Table
    replayed: pa.Table
    layers: list[LayerDifference]

    @property
    def differences(self) -> list[str]:
        """The columns that differ; empty for a row that replays exactly (NaN equals NaN)."""
        return [
            name
            for name in self.stored.column_names
            if repr(self.stored[name].to_pylist()) != repr(self.replayed[name].to_pylist())
        ]


def cell_of(folder: Path, selection: str = "") -> Path:
    """The one cell's folder in a campaign's tree whose path below it holds every selected word.

    Args:
        folder: of a campaign or of the cell itself.
        selection: words, separated by commas or blanks: ``odin,backward-id,progip``.

    Raises:
        ProgipError: no cell fits, or several do; they are named.
    """
    found = [
        path.parent
        for path in sorted(folder.rglob(store.MANIFEST))
        if (store.read_json(path) or {}).get("kind") == "cell"
    ]
    if not found:
        raise ProgipError(
            f"{folder} holds no cell: there is no {store.MANIFEST} of one in or below it"
        )
    names = {path.relative_to(folder).as_posix(): path for path in found}
    words = selection.replace(",", " ").split()
    fitting = [name for name in names if set(words) <= {*name.split("/"), *re.split("[/-]", name)}]
    if len(fitting) == 1:
        return names[fitting[0]]
    listed = "; ".join(fitting or names)
    what = f"{len(fitting)} cells fit" if fitting else "no cell fits"
    raise ProgipError(f"{folder}: {what} cell={selection!r}; choose by words of one of: {listed}")


def manifest_of(cell: Path) -> dict[str, Any]:
    """The manifest of a cell's folder. Raises ProgipError where there is none that can be read."""
    manifest = read_manifest(cell)
    if manifest is None:
        raise ProgipError(f"{cell}: there is no {store.MANIFEST}; nothing to replay from")
    return manifest


def stored_row(folder: Path, run_id: int, schema: pa.Schema) -> pa.Table:
    """One row of a cell's folder.

    Raises:
        ProgipError: no shard of this folder holds the run, or the one that does is damaged or has
            other columns. Nothing in the folder is changed.
    """
    found = store.named_shards(folder)
    for shard in found:
        if shard.start <= run_id < shard.stop:
            _, rows = read_shard(shard.path, schema)
            return rows.slice(run_id - shard.start, 1)
    held = ", ".join(f"{s.start}..{s.stop - 1}" for s in found) or "none"
    raise ProgipError(f"{folder}: there is no run {run_id}; runs here: {held}")


def refuse_ended(stored: pa.Table, settings: CellSettings) -> None:
    """Refuse a row of which nothing but its fault is known. Raises ProgipError."""
    if settings.sampling.roulette < 1 and not stored["roulette"][0].as_py():
        raise ProgipError(
            f"{settings.folder}: run {stored['run_id'][0]} was ended early (sampling.roulette), so "
            "what is stored of it is its image's fault-free execution, not a result of its fault; "
            "choose a run whose roulette is above 0"
        )


def subject_again(settings: CellSettings) -> tuple[Subject, list[str]]:
    """The subject that a cell's rows were made with, and what of its code was edited since.

    Args:
        settings: of the cell, as its manifest records them.

    Raises:
        ProgipError: weights, data or options are no longer those of the rows.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    manifest = manifest_of(settings.folder)
    subject = prepare(settings.subject)
    check_same_identity(settings.folder, {**manifest["identity"], **subject.tested.identity})
    return subject, code_differences(manifest["identity"], cell_identity(settings, subject))


def replay(settings: CellSettings, run_id: int) -> Replay:
    """Execute run ``run_id`` of a cell again, from the columns of its stored row alone.

    Where code was edited since, a warning names it: the comparison then shows what that changed.

    Args:
        settings: of the cell, as its manifest records them.

    Raises:
        ProgipError: the run is not there, or weights, data or options are no longer those the
            row was made with.
    """
    schema = result_schema(settings)
    stored = stored_row(settings.folder, run_id, schema)
    refuse_ended(stored, settings)
    subject, edited = subject_again(settings)
    if edited:
        log.warning("the row was made by other code than replays it: %s", "; ".join(edited))
    sites = subject.chosen(settings.fault_model, settings.fault_pass)
    executor = reference_executor(settings, subject, sites)
    plan = stored.select(planned_columns(settings))
    again = executor.run(plan)
    alarm = None
    if settings.sampling.roulette < 1:  # what the row counts is no result of executing it
        again |= {name: stored[name].to_numpy() for name in records.ROULETTE.names}
    observed = observed_table(
        plan,
        subject.golden.evaluation(settings.population),
        again,
        execution_schema(settings),
        lambda: subject.super_layers,
        sites=sites,
    )
    thresholds = manifest_of(settings.folder)["thresholds"]
    learn(settings, subject)
    if settings.sampling.roulette < 1:
        golden = golden_evidence(subject.golden.evaluation(settings.population))
        alarm = settings.protection.judge(golden, thresholds).alarm
    replayed = judge(
        observed,
        settings.names,
        settings.outcome,
        settings.protection,
        thresholds,
        thresholds["ood"],
        evidence_of(subject.golden.evaluation(settings.population).schema),
        schema,
        alarm,
    )
    layers = trace_run(executor, plan, subject.survey.sites)
    return Replay(stored, replayed, layers)


def spread(layers: list[LayerDifference]) -> list[str]:
    """For each pass in a sentence: where the run first differs from golden, and where that ends."""
    told: list[str] = []
    passes = sorted({*records.PASSES, *(layer.fault_pass for layer in layers)}, key=place_of)
    for fault_pass in passes:
        here = [layer for layer in layers if layer.fault_pass == fault_pass]
        apart = [i for i, layer in enumerate(here) if layer.differing]
        if not apart:
            masked = bool(told) and fault_pass == "second_forward" and "differs first" in told[-1]
            reason = ": the perturbation takes the gradient's sign alone" if masked else ""
            told.append(f"{fault_pass}: nothing differs from golden{reason}")
            continue
        first, last = here[apart[0]], apart[-1]
        end = (
            f"it reaches the {here[-1].layer}"
            if last == len(here) - 1
            else f"masked at {here[last + 1].layer}, nothing differs from there on"
        )
        told.append(f"{fault_pass}: differs first in {first.layer}; {end}")
    return told
