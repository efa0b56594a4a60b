"""The tables that flow through a campaign: the column names and types of each step.

config -> cell -> plan -> execute -> judge -> store -> estimate -> report; every arrow takes and
gives one of these tables.
"""

from collections.abc import Iterable

import pyarrow as pa

#: of result rows and their manifest; raise it with every change that older readers get wrong
SCHEMA_VERSION = 1

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

#: what execution measured, fault-free; one row an image of an evaluation or calibration split.
GOLDEN = pa.schema(
    [
        ("sample_index", pa.int32()),
        ("label", pa.int32()),  # -1 for OOD
        ("class", pa.int32()),
        ("score", pa.float64()),
        ("grad_max", pa.float32()),
        ("nonfinite_logits", pa.bool_()),
        ("nonfinite_gradient", pa.bool_()),
        ("nonfinite_score", pa.bool_()),
        ("range_excess_first", pa.float32()),
        ("range_layer_first", pa.string()),
        ("range_excess_second", pa.float32()),
        ("range_layer_second", pa.string()),
    ]
)

#: golden rows of every image of a subject, as they stand beside the executed runs.
CLEAN = pa.schema([("population", pa.string()), ("split", pa.string()), *GOLDEN])

#: what execution measured of a run.
OBSERVED = pa.schema(
    [
        ("label", pa.int32()),
        ("value_before", pa.float32()),
        ("value_after", pa.float32()),
        ("golden_class", pa.int32()),
        ("golden_score", pa.float64()),
        ("golden_grad_max", pa.float32()),
        ("faulty_class", pa.int32()),  # -1: the logits hold a NaN, there is no class
        ("faulty_score", pa.float64()),
        ("faulty_grad_max", pa.float32()),
        ("nonfinite_logits", pa.bool_()),
        ("nonfinite_gradient", pa.bool_()),
        ("nonfinite_score", pa.bool_()),
        ("range_excess_first", pa.float32()),  # widths beyond the clean range, worst layer
        ("range_layer_first", pa.string()),
        ("range_excess_second", pa.float32()),
        ("range_layer_second", pa.string()),
    ]
)

#: of a run whose faults hit any number of neurons; ``layer`` is "", ``neuron`` and ``bit`` are -1
#: there, and the hits themselves follow from seed, cell and run_id (``FaultModel.hits``).
MANY = pa.schema(
    [
        ("hits", pa.int32()),
        ("fault_digest", pa.int64()),  # hash of sites, neurons and bits; 0 without a hit
    ]
)

#: what a correcting protection did in a fault-free execution.
GOLDEN_CORRECTION = pa.schema(
    [
        ("flagged", pa.bool_()),  # it found an error, in whichever forward pass
        ("corrected", pa.int64()),  # values that it changed, in all forward passes
    ]
)

#: the same in a run, and how well it met the hits (in the pass that was hit, if that is a forward).
CORRECTION = pa.schema(
    [
        *GOLDEN_CORRECTION,
        ("corrected_hit", pa.int64()),  # changed values that a fault had hit
        ("hits_corrected", pa.int32()),  # hits that were corrected in at least one place
    ]
)

#: the outcome: functions of the observation and of the OOD threshold, the same for all protections.
OUTCOME = pa.schema(
    [
        ("originally_correct", pa.bool_()),
        ("class_changed", pa.bool_()),
        ("verdict_changed", pa.bool_()),
        ("classification_failure", pa.bool_()),  # before any protection
        ("detection_failure", pa.bool_()),  # before any protection; disjoint from the former
    ]
)

#: what one protection said.
ALARM = pa.schema([("alarm", pa.bool_()), ("alarm_stage", pa.string())])  # "" = no alarm

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
        )
    ]
)

#: what one shard of an execution holds, shared by every protection that watches it.
EXECUTION = pa.schema([*PLAN, *OBSERVED])

#: a result row: the contract with every reader.
RESULT = pa.schema([*CELL, *EXECUTION, *OUTCOME, *ALARM])


def execution_schema(*more: Iterable[pa.Field]) -> pa.Schema:
    """``EXECUTION`` with the columns that a kind of fault or protection adds."""
    return pa.schema([*EXECUTION, *(field for fields in more for field in fields)])


def result_schema(*more: Iterable[pa.Field]) -> pa.Schema:
    """``RESULT`` with the same columns added, at the end."""
    return pa.schema([*RESULT, *(field for fields in more for field in fields)])


PASSES = ("first_forward", "backward", "second_forward")
POPULATIONS = ("id", "ood")
OOD_LABEL = -1
NO_CLASS = -1
