"""The outcome columns as a truth table."""

import numpy as np
import pyarrow as pa
import pytest

from progip.campaign.judge import runs_of
from progip.outcomes.base import Context
from progip.outcomes.ood_verdict import OODVerdict

NAN, INF = float("nan"), float("inf")
THRESHOLD = 0.5
#    golden score, faulty score, golden class, faulty class, label -> correct, verdict changed,
#    classification failure, detection failure
ID_CASES = [
    (0.9, 0.8, 3, 3, 3, True, False, False, False),
    (0.9, 0.8, 3, 4, 3, True, False, True, False),
    (0.9, 0.8, 3, -1, 3, True, False, True, False),  # no class: the logits hold a NaN
    (0.9, 0.2, 3, 4, 3, True, True, False, True),  # the verdict comes first
    (0.9, 0.5, 3, 3, 3, True, True, False, True),  # on the threshold means OOD
    (0.9, NAN, 3, 3, 3, True, True, False, True),
    (0.9, INF, 3, 3, 3, True, True, False, True),
    (0.9, -INF, 3, 3, 3, True, True, False, True),
    (0.9, 0.8, 2, 3, 3, False, False, False, False),  # golden class was wrong
    (0.2, 0.9, 3, 3, 3, False, True, False, False),  # golden verdict was wrong
    (NAN, NAN, 3, 3, 3, False, True, False, False),
]
OOD_CASES = [
    (0.2, 0.3, 3, 7, -1, True, False, False, False),  # a class means nothing
    (0.2, 0.9, 3, 3, -1, True, True, False, True),
    (0.2, NAN, 3, 3, -1, True, True, False, True),
    (0.9, 0.2, 3, 3, -1, False, True, False, False),
]


@pytest.mark.parametrize(("population", "cases"), [("id", ID_CASES), ("ood", OOD_CASES)])
def test_truth_table(population: str, cases: list[tuple]) -> None:
    inputs = ("golden_score", "faulty_score", "golden_class", "faulty_class", "label")
    table = pa.table({name: [case[i] for case in cases] for i, name in enumerate(inputs)})
    outcome = OODVerdict(name="ood_verdict")
    found = outcome.judge(runs_of(table, outcome.needs), Context(population, THRESHOLD))
    for row, case in enumerate(cases):
        names = (
            "originally_correct", "verdict_changed", "classification_failure", "detection_failure",
        )  # fmt: skip
        assert tuple(bool(found[name][row]) for name in names) == case[5:], case
    np.testing.assert_array_equal(found["class_changed"], [case[2] != case[3] for case in cases])
    assert not (found["classification_failure"] & found["detection_failure"]).any()
