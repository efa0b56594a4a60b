"""The columns that readers rely on, written out: what progip composes must equal them."""

import pyarrow as pa

from progip import records

OBSERVED = pa.schema(
    [
        ("label", pa.int32()),
        ("field", pa.string()),
        ("value_before", pa.float32()),
        ("value_after", pa.float32()),
        ("golden_class", pa.int32()),
        ("golden_score", pa.float64()),
        ("golden_grad_max", pa.float32()),
        ("faulty_class", pa.int32()),
        ("faulty_score", pa.float64()),
        ("faulty_grad_max", pa.float32()),
        ("nonfinite_logits", pa.bool_()),
        ("nonfinite_gradient", pa.bool_()),
        ("nonfinite_score", pa.bool_()),
        ("range_excess_first", pa.float32()),
        ("range_layer_first", pa.string()),
        ("range_excess_second", pa.float32()),
        ("range_layer_second", pa.string()),
    ]
)
GOLDEN = pa.schema(
    [
        ("sample_index", pa.int32()),
        ("label", pa.int32()),
        ("class", pa.int32()),
        ("score", pa.float64()),
        ("grad_max", pa.float32()),
        *list(OBSERVED)[9:],
    ]
)
CLEAN = pa.schema([("population", pa.string()), ("split", pa.string()), *GOLDEN])
MANY = pa.schema([("hits", pa.int32()), ("fault_digest", pa.int64())])
CORRECTION = pa.schema(
    [
        ("flagged", pa.bool_()),
        ("corrected", pa.int64()),
        ("corrected_hit", pa.int64()),
        ("hits_corrected", pa.int32()),
    ]
)
OUTCOME = pa.schema(
    [
        ("originally_correct", pa.bool_()),
        ("class_changed", pa.bool_()),
        ("verdict_changed", pa.bool_()),
        ("classification_failure", pa.bool_()),
        ("detection_failure", pa.bool_()),
    ]
)
ALARM = pa.schema([("alarm", pa.bool_()), ("alarm_stage", pa.string())])
EXECUTION = pa.schema([*records.PLAN, *OBSERVED])
RESULT = pa.schema([*records.CELL, *EXECUTION, *OUTCOME, *ALARM])


def result_schema(*more: pa.Schema) -> pa.Schema:
    """``RESULT`` with what a kind of fault or protection adds."""
    return pa.schema([*RESULT, *(field for fields in more for field in fields)])
