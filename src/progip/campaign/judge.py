"""From observations to rows: what a fault changed, and what the protection says of it."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from progip import records
from progip.campaign.roulette import check_base
from progip.outcomes.base import Context, Outcome, Runs
from progip.protections.base import Evidence, Protection
from progip.records import CLEAN_ALARM

_NO_EVIDENCE = {*records.IMAGE.names, "class"}


def golden_evidence(golden: pa.Table) -> Evidence:
    """What a protection sees of fault-free executions: every number that a probe produced."""
    return {name: records.values(golden[name]) for name in evidence_of(golden.schema)}


def faulty_evidence(observed: pa.Table, names: Iterable[str]) -> Evidence:
    """What a protection sees of runs.

    Args:
        names: of the evidence, as in golden rows.
    """
    held = observed.schema.names
    faulty = {name: f"faulty_{name}" for name in names}
    return {n: records.values(observed[f if f in held else n]) for n, f in faulty.items()}


def runs_of(observed: pa.Table, needs: Iterable[str]) -> Runs:
    """What an outcome sees of runs.

    Args:
        needs: ``Outcome.needs``.
    """
    held = observed.schema.names
    names = ["label"]
    for name in needs:
        paired = [f"golden_{name}", f"faulty_{name}"]
        names += paired if paired[1] in held else [name]
    return {name: records.values(observed[name]) for name in names}


def _clean(runs: Runs) -> Runs:
    """The same runs as if their faults had changed nothing."""
    twin = "golden_{}".format
    return {
        name: runs.get(twin(name.removeprefix("faulty_")), values) for name, values in runs.items()
    }


def evidence_of(golden: pa.Schema) -> list[str]:
    """The columns of golden rows that are evidence: the numbers made without the label."""
    return [
        field.name
        for field in golden
        if field.name not in _NO_EVIDENCE
        and not pa.types.is_string(field.type)
        and not (pa.types.is_nested(field.type) and pa.types.is_integer(field.type.value_type))
        and records.TRUTH.encode() not in (field.metadata or {})
    ]


def judge(
    observed: pa.Table,
    cell: Mapping[str, str],
    outcome: Outcome,
    protection: Protection,
    thresholds: Mapping[str, float],
    ood_threshold: float,
    evidence: Iterable[str],
    schema: pa.Schema,
    clean_alarm: np.ndarray | None = None,
) -> pa.Table:
    """Result rows of executed runs under one outcome and one protection.

    Args:
        evidence: names of what it may look at (``evidence_of`` golden rows).
        schema: of the rows (``progip.campaign.columns``).
        clean_alarm: (images,) alarms without faults, where runs may have been ended early.

    Raises:
        ProgipError: runs were ended early, and the outcome cannot be estimated from the others.
    """
    seen = faulty_evidence(observed, evidence)
    alarm, stage = protection.judge(seen, thresholds)
    count = len(observed)
    columns: dict[str, object] = {name: np.full(count, cell[name]) for name in records.CELL.names}
    columns |= {name: observed[name] for name in observed.schema.names}
    context = Context(cell["population"], ood_threshold)
    runs = runs_of(observed, outcome.needs)
    columns |= (flags := outcome.judge(runs, context))
    if clean_alarm is not None:
        check_base(outcome, flags, outcome.judge(_clean(runs), context))
        columns[CLEAN_ALARM.name] = clean_alarm[observed["sample_index"].to_numpy()]
    columns |= {"alarm": alarm, "alarm_stage": stage, **protection.measured(seen)}
    return records.table(columns, schema)
