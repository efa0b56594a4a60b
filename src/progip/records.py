"""The tables that flow through a campaign, and how their columns are put together.

config -> cell -> plan -> execute -> judge -> store -> estimate -> report; every arrow takes and
gives a table. What every table has is declared here; all other columns are declared by what
produces them: probes (``progip.probes``), fault models, correcting protections and outcomes.
``progip.campaign.columns`` composes them for one cell.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

#: of result rows and their manifest; raise it with every change that older readers get wrong
SCHEMA_VERSION = 1

PASSES = ("first_forward", "backward", "second_forward")
#: in place of one of them: a fault that stays in memory is there in each
EVERY_PASS = "all"
POPULATIONS = ("id", "ood")
OOD_LABEL = -1
NO_CLASS = -1
#: in the metadata of a golden column: it was made with the label
TRUTH = "progip:truth"


@dataclass(frozen=True)
class Column:
    """A column that a probe produces of every execution, golden and faulty alike.

    Attributes:
        name: of golden rows, and of runs unless ``paired``.
        paired: whether a run has both values, as ``golden_NAME`` and ``faulty_NAME``; else only
            its own, as NAME.
        truth: whether it is made with the label: a protection, which has none, does not see it.
        wide: whether it stays with the executed runs and golden rows: result rows, of which each
            protection has its own, do not repeat it. Its type may be a list of any one length.
    """

    name: str
    type: pa.DataType
    paired: bool = False
    truth: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Part:
    """Columns of a table and what produces them, in words: ``probe detection``."""

    producer: str
    fields: tuple[pa.Field, ...]


#: which cell a row belongs to.
CELL = pa.schema(
    [
        (name, pa.string())
        for name in (
            "cell",
            "model",
            "dataset",
            "ood_dataset",
            "population",
            "ood_method",
            "fault_model",
            "fault_pass",
            "protection",
            "outcome",
            "condition",  # which images
            "number_format",
            "target",  # the kind of tensor that is hit
        )
    ]
)

#: what a run is: drawn ahead, before anything is executed.
PLAN = pa.schema(
    [
        ("run_id", pa.int64()),
        ("sample_index", pa.int32()),  # position in the population's evaluation split
        ("layer", pa.string()),  # name in named_modules()
        ("call", pa.int16()),  # which call of that module in the pass; 0 unless it is reused
        ("neuron", pa.int64()),  # flat index into one sample's tensor, channels first
        ("bit", pa.int8()),  # 0 = least significant, 31 = sign
        ("weight", pa.float64()),  # target probability over sampling probability
        ("stratum", pa.int32()),  # position in the sampling plan's strata; 0 where it has none
    ]
)

#: which image a golden row is of.
IMAGE = pa.schema([("sample_index", pa.int32()), ("label", pa.int32())])  # label -1 for OOD

#: where golden rows of all splits stand together.
SPLIT = pa.schema([("population", pa.string()), ("split", pa.string())])

#: what execution adds to a run whatever is observed of it.
FAULT = pa.schema(
    [
        ("label", pa.int32()),
        ("field", pa.string()),  # of the number format: what the bit means; "" where it names none
        ("value_before", pa.float32()),
        ("value_after", pa.float32()),
    ]
)

#: what weighted termination adds to a run.
ROULETTE = pa.schema(
    [
        ("roulette", pa.float64()),  # what it counts: 1; 0 where it was ended; else 1 / probability
        ("change_at_fault", pa.float32()),  # over the largest magnitude there; NaN: not measured
        ("change_at_logits", pa.float32()),  # the same; NaN: none, or not measured
    ]
)
#: and to its judgement: the alarm of the image's fault-free execution
CLEAN_ALARM = pa.field("clean_alarm", pa.bool_())

#: what one protection said.
ALARM = pa.schema([("alarm", pa.bool_()), ("alarm_stage", pa.string())])  # "" = no alarm


def lacking(needs: Collection[str], shown: Collection[str]) -> list[str]:
    """The columns that something needs and nothing shows.

    A second forward pass that is never made cannot leave its range: what needs more than that then
    goes without it.
    """
    missing = [name for name in needs if name not in shown]
    return [] if missing == ["range_excess_second"] and len(needs) > 1 else missing


def values(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array (rows,), one of lists of k values each as (rows, k)."""
    if not pa.types.is_nested(column.type):
        return column.to_numpy()
    flat: np.ndarray = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), len(flat) // max(len(column), 1))


def table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A table of a schema from the arrays of ``values``, or columns of other tables."""
    made = {}
    for field in schema:
        column = columns[field.name]
        if isinstance(column, np.ndarray) and column.ndim == 2:
            flat = pa.array(np.ascontiguousarray(column).ravel(), field.type.value_type)
            column = pa.FixedSizeListArray.from_arrays(flat, column.shape[1]).cast(field.type)
        made[field.name] = column
    return pa.table(made, schema=schema)


def same_values(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(rows,) whether two columns have the same value; one NaN is the same as another."""
    same = (one == other) | ((one != one) & (other != other))
    whole: np.ndarray = same.reshape(len(same), -1).all(1)
    return whole


def golden_schema(produced: Iterable[Column]) -> pa.Schema:
    """Golden rows, one per image of an evaluation or calibration split."""
    truth = {True: {TRUTH: ""}, False: None}
    return pa.schema(
        [*IMAGE, *(pa.field(c.name, c.type, metadata=truth[c.truth]) for c in produced)]
    )


def run_fields(produced: Sequence[Column]) -> tuple[pa.Field, ...]:
    """Columns of a probe as runs have them: golden values, faulty values, the rest."""
    paired = [c for c in produced if c.paired]
    return (
        *(pa.field(f"golden_{c.name}", c.type) for c in paired),
        *(pa.field(f"faulty_{c.name}", c.type) for c in paired),
        *(pa.field(c.name, c.type) for c in produced if not c.paired),
    )


def schema_of(parts: Iterable[Part]) -> pa.Schema:
    """The table that some parts make together."""
    return pa.schema([field for part in parts for field in part.fields])


def described(parts: Iterable[Part]) -> list[dict[str, str]]:
    """For manifests: every column with its type and what produces it."""
    return [
        {"name": field.name, "type": str(field.type), "producer": part.producer}
        for part in parts
        for field in part.fields
    ]
