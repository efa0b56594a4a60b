"""Counts of one cell, streamed from its shards: only the columns needed, a batch at a time."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from progip.errors import ProgipError
from progip.report.manifests import CellFolder

FLAGS = (
    "originally_correct",
    "classification_failure",
    "detection_failure",
    "alarm",
    "nonfinite_logits",
    "nonfinite_gradient",
    "nonfinite_score",
)
COLUMNS = ("run_id", "weight", *FLAGS)
BATCH_ROWS = 1 << 18

#: kinds of rows that are counted; each has its rows, the sum of their weights (_w), of their
#: squared weights (_w2)
KINDS = (
    "done",
    "originally_correct",
    "classification_failures",
    "detection_failures",
    "classification_left",
    "detection_left",
    "alarms",
    "harmless",
    "harmless_alarms",
    "harmless_correct",
    "harmless_correct_alarms",
)
COUNTS = tuple(f"{kind}{end}" for kind in KINDS for end in ("", "_w", "_w2"))


@dataclass
class CellCounts:
    """What the report needs to know of a cell's rows.

    counts: COUNTS and `nonfinite_failures`, rows and sums. failures: one row a failing run, with
    run_id, classification (else detection) and alarm. warnings: what was left out, by name.
    """

    counts: dict[str, float]
    failures: pd.DataFrame
    warnings: list[str] = field(default_factory=list)


def count_cell(cell: CellFolder) -> CellCounts:
    """Count a cell's rows; whatever cannot be read, or is there twice, is left out with a warning.

    A shard is counted whole or not at all. Rows that do not belong to the plan (run_id outside
    0..runs-1) are left out too.
    """
    planned = int(cell.manifest["runs"])
    seen = np.zeros(planned, dtype=bool)
    total = dict.fromkeys((*COUNTS, "nonfinite_failures"), 0.0)
    backward = cell.manifest["cell"]["fault_pass"] == "backward"
    failures = [_failures(_no_rows())]
    warnings = []
    for shard in cell.shards:
        label = f"{cell.name}/{shard.name}"
        try:
            columns = _read(shard)
        except (OSError, pa.ArrowException, ProgipError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            warnings.append(
                f"shard left out: {label}: {reason}. Run the campaign again to redo it."
            )
            continue
        run_id = columns["run_id"]
        keep = (run_id >= 0) & (run_id < planned)
        if not keep.all():
            warnings.append(
                f"{(~keep).sum()} rows left out: {label}: "
                f"run_id outside the {planned:,} planned runs"
            )
        first = np.ones(len(run_id), dtype=bool)
        if (np.diff(run_id) <= 0).any():  # not in plain order: look for a run that is there twice
            first[:] = False
            first[np.unique(run_id, return_index=True)[1]] = True
        twice = keep & ~(first & ~seen[np.where(keep, run_id, 0)])
        if twice.any():
            warnings.append(
                f"{twice.sum()} rows left out: {label}: their runs were counted already"
            )
            keep &= ~twice
        if not keep.all():
            columns = {name: values[keep] for name, values in columns.items()}
        seen[columns["run_id"]] = True
        for name, value in _count(columns, backward).items():
            total[name] += value
        failures.append(_failures(columns))
    for name in (*KINDS, "nonfinite_failures"):
        total[name] = int(total[name])
    return CellCounts(total, pd.concat(failures, ignore_index=True), warnings)


def _read(shard: Path) -> dict[str, NDArray]:
    """The needed columns of one shard as arrays; ProgipError for rows that make no sense."""
    parts: list[dict[str, NDArray]] = [_no_rows()]
    with pq.ParquetFile(shard) as file:
        absent = [name for name in COLUMNS if name not in file.schema_arrow.names]
        if absent:
            raise ProgipError(f"it lacks the columns {', '.join(absent)}")
        for batch in file.iter_batches(BATCH_ROWS, columns=list(COLUMNS)):
            for name in COLUMNS:
                if batch.column(name).null_count:
                    raise ProgipError(f"column {name} has empty values")
            parts.append({n: batch.column(n).to_numpy(zero_copy_only=False) for n in COLUMNS})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    weight = columns["weight"]
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ProgipError("a weight is not a positive finite number")
    c, d = columns["classification_failure"], columns["detection_failure"]
    if (c & d).any() or ((c | d) & ~columns["originally_correct"]).any():
        raise ProgipError("a run is both kinds of failure, or fails without being correct at first")
    return columns


def _count(columns: dict[str, NDArray], backward: bool) -> dict[str, float]:
    correct, c, d, alarm = (columns[name] for name in FLAGS[:4])
    harmless = ~(c | d)
    if backward:
        nonfinite = (c | d) & columns["nonfinite_gradient"]
    else:
        nonfinite = (c & columns["nonfinite_logits"]) | (d & columns["nonfinite_score"])
    masks = (
        np.ones(len(alarm), dtype=bool),
        correct,
        c,
        d,
        c & ~alarm,
        d & ~alarm,
        alarm,
        harmless,
        harmless & alarm,
        harmless & correct,
        harmless & correct & alarm,
    )
    result = {"nonfinite_failures": float(nonfinite.sum())}
    weight = columns["weight"]
    plain = bool((weight == 1).all())
    for kind, mask in zip(KINDS, masks, strict=True):
        n = float(np.count_nonzero(mask))
        result[kind] = n
        result[f"{kind}_w"] = n if plain else float(weight[mask].sum())
        result[f"{kind}_w2"] = n if plain else float(np.square(weight[mask]).sum())
    return result


def _failures(columns: dict[str, NDArray]) -> pd.DataFrame:
    """One row a failing run."""
    c = columns["classification_failure"]
    rows = np.flatnonzero(c | columns["detection_failure"])
    return pd.DataFrame(
        {
            "run_id": columns["run_id"][rows],
            "classification": c[rows],
            "alarm": columns["alarm"][rows],
        }
    )


def _no_rows() -> dict[str, NDArray]:
    kinds = {"run_id": np.int64, "weight": np.float64}
    return {name: np.empty(0, dtype=kinds.get(name, np.bool_)) for name in COLUMNS}
