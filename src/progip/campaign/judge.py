"""From observations to outcomes: what a fault changed, and whether that is a failure."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from progip import records
from progip.protections.base import EVIDENCE, Evidence, Protection

_FAULTY = {"grad_max": "faulty_grad_max", "score": "faulty_score"}


def golden_evidence(golden: pa.Table) -> Evidence:
    """What a protection sees of fault-free executions (``records.GOLDEN``)."""
    names = [*EVIDENCE]
    names += [name for name in records.GOLDEN_CORRECTION.names if name in golden.column_names]
    return {name: golden[name].to_numpy() for name in names}


def faulty_evidence(observed: pa.Table) -> Evidence:
    """What a protection sees of runs (``records.execution_schema``)."""
    names = [*EVIDENCE]
    names += [name for name in records.GOLDEN_CORRECTION.names if name in observed.column_names]
    return {name: observed[_FAULTY.get(name, name)].to_numpy() for name in names}


def outcomes(observed: pa.Table, population: str, ood_threshold: float) -> dict[str, np.ndarray]:
    """The columns of ``records.OUTCOME`` for runs of one population.

    The verdict is ID where score > ood_threshold, else OOD; a score that is not finite is neither,
    so it always counts as a changed verdict. An ID image is originally correct if its golden class
    and verdict are right, an OOD image if its golden verdict is. The two failures are disjoint: a
    changed verdict comes first, since the class of an input judged OOD is never acted on.
    """
    column = {name: observed[name].to_numpy() for name in _OUTCOME_INPUTS}
    golden_score, faulty_score = column["golden_score"], column["faulty_score"]
    golden_id = golden_score > ood_threshold
    faulty_id = faulty_score > ood_threshold
    verdict_changed = ~np.isfinite(faulty_score) | (golden_id != faulty_id)
    class_changed = column["faulty_class"] != column["golden_class"]
    if population == "id":
        correct = golden_id & (column["golden_class"] == column["label"])
    else:
        correct = ~golden_id
    correct = correct & np.isfinite(golden_score)
    return {
        "originally_correct": correct,
        "class_changed": class_changed,
        "verdict_changed": verdict_changed,
        "classification_failure": correct & ~verdict_changed & class_changed & (population == "id"),
        "detection_failure": correct & verdict_changed,
    }


_OUTCOME_INPUTS = ("golden_score", "faulty_score", "golden_class", "faulty_class", "label")


def judge(
    observed: pa.Table,
    cell: Mapping[str, str],
    protection: Protection,
    thresholds: Mapping[str, float],
    ood_threshold: float,
) -> pa.Table:
    """Result rows (``records.result_schema``) of executed runs under one protection."""
    alarm, stage = protection.judge(faulty_evidence(observed), thresholds)
    count = len(observed)
    columns: dict[str, object] = {name: np.full(count, cell[name]) for name in records.CELL.names}
    columns |= {name: observed[name] for name in observed.schema.names}
    columns |= outcomes(observed, cell["population"], ood_threshold)
    columns |= {"alarm": alarm, "alarm_stage": stage}
    more = [f for f in observed.schema if f.name not in records.EXECUTION.names]
    return pa.table(columns, schema=records.result_schema(more))
