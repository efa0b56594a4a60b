"""What each protection calls faulty, at its limits and beyond numbers."""

import numpy as np
import pytest

from progip.errors import ProgipError
from progip.protections.base import Evidence, first_alarm
from progip.protections.none import NoProtection
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger

NAN, INF = np.nan, np.inf


def evidence(
    gradient: list[float] | None = None,
    score: list[float] | None = None,
    first: list[float] | None = None,
    second: list[float] | None = None,
) -> Evidence:
    n = len(next(v for v in (gradient, score, first, second) if v is not None))
    return {
        "grad_max": np.array(gradient or [1.0] * n, dtype=np.float32),
        "score": np.array(score or [0.2] * n),
        "range_excess_first": np.array(first or [-0.1] * n, dtype=np.float32),
        "range_excess_second": np.array(second or [-0.1] * n, dtype=np.float32),
    }


CLEAN = evidence(gradient=[1.0, 2.0, 4.0], score=[0.1, 0.2, 0.3])


def test_progip_thresholds_are_the_widened_clean_extremes() -> None:
    progip = ProGIP(name="p", gradient_margin=0.25, score_margin=0.5, score_side="both")
    limits = progip.calibrate(CLEAN, gradient_vanishes=True)
    assert limits == pytest.approx(
        {"gradient_low": 0.8, "gradient_high": 5.0, "score_low": 0.0, "score_high": 0.4}
    )


@pytest.mark.parametrize("vanishes", [True, False])
def test_only_vanishing_gradients_are_checked_from_below(vanishes: bool) -> None:
    progip = ProGIP(name="p")
    limits = progip.calibrate(CLEAN, gradient_vanishes=vanishes)
    alarm, stage = progip.judge(evidence(gradient=[0.0, 0.5, 2.0, 5.0, NAN, INF]), limits)
    assert alarm.tolist() == [vanishes, vanishes, False, True, True, True]
    assert set(stage[alarm]) == {"gradient"}
    assert set(stage[~alarm]) == {""}


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("upper", [False, False, True, True, True, True]),
        ("lower", [True, False, False, True, True, True]),
        ("both", [True, False, True, True, True, True]),
    ],
)
def test_sides_of_the_score(side: str, expected: list[bool]) -> None:
    progip = ProGIP(name="p", score_side=side)
    limits = progip.calibrate(CLEAN, gradient_vanishes=False)
    found = progip.judge(evidence(score=[-9.0, 0.2, 9.0, NAN, INF, -INF]), limits)
    assert found.alarm.tolist() == expected
    assert set(found.stage[found.alarm]) == {"score"}


def test_a_clean_zero_gradient_does_not_make_zero_fine() -> None:
    progip = ProGIP(name="p", gradient_margin=0.0)
    limits = progip.calibrate(evidence(gradient=[0.0, 1.0]), gradient_vanishes=True)
    assert progip.judge(evidence(gradient=[0.0, 0.5]), limits).alarm.tolist() == [True, False]


def test_ranger_looks_at_both_forward_passes() -> None:
    ranger = Ranger(name="r", margin=0.1)
    limits = ranger.calibrate(CLEAN, gradient_vanishes=True)
    found = ranger.judge(
        evidence(first=[0.1, 0.11, -1.0, NAN, -1.0, INF], second=[0.0, 5.0, 0.11, 0.0, NAN, 0.0]),
        limits,
    )
    assert found.alarm.tolist() == [False, True, True, True, True, True]
    assert found.stage.tolist() == [
        "", "first_forward", "second_forward", "first_forward", "second_forward", "first_forward",
    ]  # fmt: skip


def test_none_is_never_alarmed() -> None:
    none = NoProtection(name="n")
    found = none.judge(evidence(score=[NAN, INF]), none.calibrate(CLEAN, gradient_vanishes=True))
    assert not found.alarm.any()


def test_the_first_check_names_the_stage() -> None:
    raised = [("a", np.array([True, False, False])), ("b", np.array([True, True, False]))]
    assert first_alarm(raised).stage.tolist() == ["a", "b", ""]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProGIP(name="p", score_side="left"),
        lambda: ProGIP(name="p", gradient_side="lower"),
        lambda: ProGIP(name="p", gradient_margin=-1.0),
        lambda: Ranger(name="r", margin=-0.1),
    ],
)
def test_wrong_options(make: object) -> None:
    with pytest.raises(ProgipError, match="protection"):
        make()  # type: ignore[operator]
