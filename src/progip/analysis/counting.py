"""Counts of one cell, streamed from its shards: only the columns needed, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from progip.analysis import measuring, tally
from progip.analysis.kinds import Kinds, declared_in, kinds_of
from progip.analysis.manifests import CellFolder
from progip.errors import ProgipError
from progip.passes import is_backward
from progip.statistics import Moments

#: columns that are read of every cell, beside the flags of its outcome
COLUMNS = ("run_id", "sample_index", "weight")
BATCH_ROWS = 1 << 18
#: numbers of rows after which a cell's sums are kept, to show how its intervals narrowed
MILESTONES = tuple(m * 10**e for e in range(2, 8) for m in (1, 2, 5))


@dataclass
class CellCounts:
    """What the report needs to know of a cell's rows.

    Attributes:
        counts: of each of `Kinds.masks` its rows, the sum of their weights (_w), of their squared
            weights (_w2); `nonfinite_failures`; `moments`, what they are made of; `milestones`,
            pairs of a number of rows and the moments of the first so many; and `means`, of the
            outcome's measures.
        failures: one row per failing run, with run_id, sample_index, kind (its category without the
            alarm), alarm and weight.
        warnings: what was left out or is odd, by name.
    """

    counts: dict[str, Any]
    failures: pd.DataFrame
    warnings: list[str] = field(default_factory=list)


class OtherColumns(ProgipError):
    """A shard of another version: whole, so no campaign that is run again redoes it."""


def count_cell(cell: CellFolder, estimand: str | None = None) -> CellCounts:
    """Count a cell's rows; whatever cannot be read, or is there twice, is left out with a warning.

    A shard is counted whole or not at all. Rows that do not belong to the plan (run_id outside
    0..runs-1) are left out too.

    Args:
        cell: on disk.
        estimand: the population that weights describe, one of `tally.ESTIMANDS`; None for the fault
            model's own.

    Raises:
        ProgipError: weights or strata do not match the plan in the manifest.
    """
    sums = tally.Tally(cell.manifest, estimand)
    kinds = sums.kinds
    means = [measuring.MeanSums(measure) for measure in kinds.declared.measures]
    backward = is_backward(cell.manifest["cell"]["fault_pass"])
    more = [name for mean in means for name in mean.columns]
    more += _nonfinite_columns(kinds, backward).values()
    names = tuple(dict.fromkeys((*COLUMNS, *sums.columns, *more)))
    nonfinite = 0
    failing = []
    warnings: list[str] = []
    milestones: list[tuple[int, Moments]] = []
    done = 0
    for shard, columns in valid_rows(cell, names, warnings):
        for mean in means:
            mean.add(columns, sums.places(columns))
        before, done = done, done + len(columns["run_id"])
        start = 0
        try:
            for stop in [milestone for milestone in MILESTONES if before < milestone < done] + [
                done
            ]:
                part = slice(start, stop - before)
                sums.add({name: values[part] for name, values in columns.items()})
                start = stop - before
                if stop in MILESTONES:
                    milestones.append((stop, sums.moments()))
        except ProgipError as error:
            raise ProgipError(f"{cell.name}/{shard.name}: {error}; run that cell again") from error
        nonfinite += _nonfinite(kinds, columns, backward)
        rows = kinds.failed(columns)
        failing.append({name: values[rows] for name, values in columns.items()})
    moments = sums.moments()
    if done and done not in MILESTONES:
        milestones.append((done, moments))
    counts: dict[str, Any] = {
        "nonfinite_failures": nonfinite,
        "moments": moments,
        "milestones": milestones,
    }
    counts["means"] = {mean.measure.name: mean.moments(sums) for mean in means}
    for kind, mask in kinds.masks.items():
        counts[kind] = int(moments.rows[mask].sum())
        counts[f"{kind}_w"] = float(moments.total[mask].sum())
        counts[f"{kind}_w2"] = float(moments.squares[mask].sum())
    if odd := sums.warning():
        warnings.append(f"{cell.name}: {odd}")
    return CellCounts(counts, _failures(failing, sums), warnings)


def valid_rows(
    cell: CellFolder, names: tuple[str, ...], warnings: list[str]
) -> Iterator[tuple[Path, dict[str, NDArray]]]:
    """The named columns of a cell's rows, shard by shard, every planned run once.

    Args:
        cell: on disk.
        names: COLUMNS and the flags of the cell's outcome among them.
        warnings: gets a sentence for all that is left out.
    """
    planned = int(cell.manifest["runs"])
    kinds = kinds_of(declared_in(cell.manifest))
    seen = np.zeros(planned, dtype=bool)
    for shard in cell.shards:
        label = f"{cell.name}/{shard.name}"
        try:
            columns = _read(shard, names, kinds)
        except (OSError, pa.ArrowException, ProgipError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            advice = "Run the campaign again to redo it."
            if isinstance(error, OtherColumns):
                advice = "Report with the version of progip that wrote it."
            warnings.append(f"shard left out: {label}: {reason}. {advice}")
            continue
        run_id = columns["run_id"]
        keep = (run_id >= 0) & (run_id < planned)
        if not keep.all():
            warnings.append(
                f"{(~keep).sum()} rows left out: {label}: "
                f"run_id outside the {planned:,} planned runs"
            )
        first = np.ones(len(run_id), dtype=bool)
        if (
            np.diff(run_id) <= 0
        ).any():  # not in plain order: milestone for a run that is there twice
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
        yield shard, columns


def _read(shard: Path, names: tuple[str, ...], kinds: Kinds) -> dict[str, NDArray]:
    """The named columns of one shard as arrays; ProgipError for rows that make no sense."""
    parts: list[dict[str, NDArray]] = []
    with pq.ParquetFile(shard) as file:
        held = file.schema_arrow.names
        absent = [name for name in names if name not in held]
        if absent:
            raise OtherColumns(f"it lacks the columns {', '.join(absent)}")
        for batch in file.iter_batches(BATCH_ROWS, columns=list(names), use_threads=False):
            found = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in names:
                if found[name].null_count:
                    raise ProgipError(f"column {name} has empty values")
            parts.append({n: found[n].to_numpy(zero_copy_only=False) for n in names})
    if not parts:
        raise ProgipError("it holds no row")
    columns = (
        {name: np.concatenate([part[name] for part in parts]) for name in names}
        if len(parts) > 1
        else parts[0]
    )
    weight = columns["weight"]
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ProgipError("a weight is not a positive finite number")
    if odd := kinds.odd(columns):
        raise ProgipError(odd)
    return columns


def _nonfinite_columns(kinds: Kinds, backward: bool) -> dict[str, str]:
    """By the flag of each failure, the column that says that such a run is not finite."""
    columns = {
        event.flag: "nonfinite_gradient" if backward else event.nonfinite
        for event in kinds.declared.failures
    }
    return {flag: column for flag, column in columns.items() if column}


def _nonfinite(kinds: Kinds, columns: dict[str, NDArray], backward: bool) -> int:
    """Failures that are not finite."""
    found = np.zeros(len(columns["run_id"]), dtype=bool)
    for flag, column in _nonfinite_columns(kinds, backward).items():
        found |= columns[flag] & columns[column]
    return int(found.sum())


def _failures(failing: list[dict[str, NDArray]], sums: tally.Tally) -> pd.DataFrame:
    """One row per failing run, with what it counts."""
    frames = [
        pd.DataFrame(
            {
                "run_id": rows["run_id"],
                "sample_index": rows["sample_index"],
                "kind": sums.kinds.silent[sums.kinds.categories(rows)],
                "alarm": rows["alarm"],
                "weight": sums.row_weights(rows),
                "map": rows["run_id"] // sums.rows_per_map if sums.rows_per_map else -1,
            }
        )
        for rows in failing
    ]
    return pd.concat([_NO_FAILURES, *frames], ignore_index=True)


_NO_FAILURES = pd.DataFrame(
    {
        "run_id": np.empty(0, np.int64),
        "sample_index": np.empty(0, np.int32),
        "kind": np.empty(0, np.int64),
        "alarm": np.empty(0, bool),
        "weight": np.empty(0, np.float64),
        "map": np.empty(0, np.int64),
    }
)
