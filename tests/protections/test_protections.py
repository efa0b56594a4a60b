"""What each protection calls faulty, at its limits and beyond numbers."""

from dataclasses import replace

import numpy as np
import pytest

from progip.errors import ProgipError
from progip.protections.base import Evidence, Protection, first_alarm, protection_from
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


@pytest.mark.parametrize(
    "protection",
    [
        ProGIP(name="p"),
        ProGIP(name="p", gradient_side="upper", score_side="both"),
        ProGIP(name="p", score_side="lower"),
        Ranger(name="r"),
    ],
)
def test_least_margins_say_at_which_margin_an_alarm_ends(protection: Protection) -> None:
    rng = np.random.default_rng(3)
    clean = evidence(list(rng.uniform(1, 2, 50)), list(rng.normal(0, 1, 50)))
    odd = [NAN, INF, -INF, 0.0]
    seen = evidence(
        [*rng.uniform(0.2, 4, 200), *odd],
        [*odd, *rng.normal(0, 2, 200)],
        [*rng.normal(0, 1, 200), *odd],
        [*odd, *rng.normal(0, 1, 200)],
    )
    limits = protection.calibrate(clean, gradient_vanishes=True)
    margins = protection.least_margins(seen, clean, limits)
    assert len(margins) == (1 if isinstance(protection, Ranger) else 2)
    for value in (0.0, 0.05, 0.3, 1.0, 5.0):
        moved = replace(protection, **dict.fromkeys(margins, value))
        judged = moved.judge(seen, moved.calibrate(clean, gradient_vanishes=True)).alarm
        predicted = np.any([margin > value for margin in margins.values()], axis=0)
        assert judged.tolist() == predicted.tolist()


def test_a_protection_comes_back_from_its_configuration() -> None:
    options = {"_target_": "progip.protections.ranger.Ranger", "name": "mine", "margin": 0.5}
    assert protection_from(options) == Ranger(name="mine", margin=0.5)
    for wrong in (
        {"name": "x"},
        {"_target_": "nowhere.Class", "name": "x"},
        {**options, "wrong": 1},
        {"_target_": "collections.Counter", "name": "x"},
    ):
        with pytest.raises(ProgipError, match="protection"):
            protection_from(wrong)


@pytest.mark.parametrize(
    "protection",
    [
        NoProtection(name="n"),
        ProGIP(name="p"),
        ProGIP(name="p", score_side="both", gradient_side="both"),
        ProGIP(name="p", score_side="lower", gradient_side="upper"),
        Ranger(name="r"),
        Ranger(name="r", margin=0.1),
    ],
)
def test_limits_say_all_that_judge_does(protection: Protection) -> None:
    """Every value near, at and beyond every limit, and beyond numbers, one by one in Python."""
    thresholds = protection.calibrate(CLEAN, gradient_vanishes=True)
    limits = protection.limits(thresholds)
    assert limits is not None
    values = [0.0, -0.0, NAN, INF, -INF, 1e-45, 1e-300, 3e38]
    for limit in (*thresholds.values(), 0.1):
        for t in (np.float32, np.float64):
            at = t(limit)
            values += [float(v) for v in (at, np.nextafter(at, t(-INF)), np.nextafter(at, t(INF)))]
    n = len(values)
    for column in ("gradient", "score", "first", "second"):
        seen = evidence(**{"score": [0.2] * n, column: values})
        found = protection.judge(seen, thresholds)
        for row in range(n):
            stages = [s for s, c, low, high in limits if not low <= float(seen[c][row]) <= high]
            assert bool(found.alarm[row]) == bool(stages), (column, values[row])
            assert found.stage[row] == (stages[0] if stages else "")
