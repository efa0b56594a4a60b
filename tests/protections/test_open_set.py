"""Open-set protection: limits against NumPy, what raises its alarm, whom it is calibrated on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import logsumexp
from tiny_networks import tiny_network
from torch import Tensor

from progip.campaign.runner import run_cell
from progip.campaign.subject import prepare
from progip.config import cell_settings, composed, resolved
from progip.contracts import check_probe, check_protection
from progip.deploy.calibration import guarded_detector
from progip.errors import ProgipError
from progip.ood_methods.energy import Energy
from progip.probes.energy import EnergyScore
from progip.protections.open_set import COLUMNS, ONE_SIDED, OpenSet

CONF = Path(__file__).resolve().parents[2] / "conf"
NAN, INF = float("nan"), float("inf")


def seen(column: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {column: values, "nonfinite_logits": np.zeros(len(values), dtype=bool)}


def limits(scores: list[float] | np.ndarray, **options: object) -> tuple[float, float]:
    protection = OpenSet(name="open_set", **options)
    column = COLUMNS[protection.score]
    found = protection.calibrate({column: np.asarray(scores)}, gradient_vanishes=True)
    return found["low"], found["high"]


def test_quantiles_leave_half_of_q_outside_on_each_side() -> None:
    scores = np.random.default_rng(0).gumbel(5, 2, 20_001)
    low, high = limits(scores, q=0.01)
    ordered = np.sort(scores)
    assert low == pytest.approx(ordered[100])  # 0.005 * 20,000 lie below
    assert high == pytest.approx(ordered[-101])
    assert limits(scores, q=0.0) == (scores.min(), scores.max())
    assert limits(scores)[0] == pytest.approx(np.quantile(scores, 0.0005))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0, 50.0], (4.5, 60.0)),
        ([-5.0, 50.0], (-5.5, 60.0)),  # (2 - 0.9) * -5
        ([-50.0, -5.0], (-55.0, -4.0)),  # (2 - 1.2) * -5
        ([0.0, 0.0], (0.0, 0.0)),
    ],
)
def test_factors_widen_whatever_the_signs(
    scores: list[float], expected: tuple[float, float]
) -> None:
    assert limits(scores, limits_by="factor", g_l=0.9, g_u=1.2) == pytest.approx(expected)
    assert limits(scores, limits_by="factor", g_l=1.0, g_u=1.0) == (scores[0], scores[1])


@pytest.mark.parametrize("score", ONE_SIDED)
def test_a_distance_has_an_upper_limit_alone(score: str) -> None:
    scores = np.random.default_rng(0).gumbel(0.5, 0.1, 1001)
    lowest = -float(np.finfo(np.float64).max)
    low, high = limits(scores, score=score, q=0.01)
    assert (low, high) == (lowest, pytest.approx(np.sort(scores)[990]))
    by_factor = limits(scores, score=score, limits_by="factor", g_u=1.2)
    # of a distance in units of the farthest training image of its class: the factor itself
    assert by_factor == (lowest, 1.2 if score == "distance" else pytest.approx(1.2 * scores.max()))


@pytest.mark.parametrize("score", COLUMNS)
def test_what_raises_the_alarm(score: str) -> None:
    protection = OpenSet(name="open_set", score=score)
    values = np.array([1.0, 2.0, 1.5, 0.999, 2.001, NAN, INF, -INF, 1.5])
    evidence = seen(COLUMNS[score], values)
    evidence["nonfinite_logits"][8] = True  # another logit is minus infinity
    judged = protection.judge(evidence, {"low": 1.0, "high": 2.0})
    assert judged.alarm.tolist() == [False] * 3 + [True] * 6
    assert judged.stage.tolist() == [""] * 3 + [score] * 5 + ["nonfinite"]


@pytest.mark.parametrize("score", COLUMNS)
def test_suspicion_orders_as_limits_do(score: str) -> None:
    """What is raised by limits that lie farther out is raised by narrower ones, too."""
    clean = np.random.default_rng(0).normal(3, 1, 100)
    protection = OpenSet(name="open_set", score=score)
    values = np.array([clean.min() - 1, 3.0, clean.max(), clean.max() + 2, NAN, INF, 3.0])
    evidence = seen(COLUMNS[score], values)
    evidence["nonfinite_logits"][6] = True
    found = protection.suspicion(evidence, seen(COLUMNS[score], clean), {})
    width = np.ptp(clean)
    assert found[2:6].tolist() == [0, pytest.approx(2 / width), INF, INF]
    assert found[6] == INF
    below = (clean.min() - 1 - clean.max()) / width if score in ONE_SIDED else 1 / width
    assert found[0] == pytest.approx(below)
    assert found[1] < 0


def test_infinity_alarms_beyond_any_factor() -> None:
    protection = OpenSet(name="open_set", limits_by="factor", g_u=1e308)
    clean = {"largest_logit": np.array([1.0, 1e10])}
    thresholds = protection.calibrate(clean, gradient_vanishes=False)
    judged = protection.judge(seen("largest_logit", np.array([INF, 1e300])), thresholds)
    assert judged.alarm.tolist() == [True, False]


@pytest.mark.parametrize("score", COLUMNS)
@pytest.mark.parametrize("limits_by", ["quantile", "factor"])
def test_contract_holds(score: str, limits_by: str) -> None:
    check_protection(OpenSet(name="open_set", score=score, limits_by=limits_by))


def test_the_energy_probe_is_log_sum_exp(images: Tensor) -> None:
    check_probe(EnergyScore())
    network = tiny_network()
    detector = guarded_detector(
        network,
        Energy(name="energy"),
        OpenSet(name="open_set", score="energy", q=0.0),
        train=[(images, torch.zeros(len(images)))],
        id_images=images[:20],
        ood_images=images[20:30],
    )
    energy = logsumexp(network(images).double().numpy(), axis=1)
    assert detector.thresholds["low"] == pytest.approx(energy[:20].min(), rel=1e-6)
    assert detector.thresholds["high"] == pytest.approx(energy[:20].max(), rel=1e-6)
    outside = (energy < energy[:20].min() - 1e-6) | (energy > energy[:20].max() + 1e-6)
    with detector:
        assert (detector(images).alarm == outside).all()
    assert 0 < outside.sum() < 20


def test_a_campaign_calibrates_on_the_chosen_population(tmp_path: Path) -> None:
    chosen = ["probes=[largest_logit]", "protection=open_set", "fault_model.bits=[28,30]"]
    cfg = composed([f"outputs={tmp_path}", "runs=200", *chosen], CONF)
    settings = cell_settings(cfg)
    folder = run_cell(settings, resolved(cfg))
    rows = pa.concat_tables(map(pq.read_table, sorted(folder.glob("part-*")))).to_pandas()
    subject = prepare(settings.subject)
    known, unknown = (
        subject.golden.tables[p, "calibration"]["largest_logit"].to_numpy().astype(np.float64)
        for p in ("id", "ood")
    )
    low, high = np.quantile(known, [0.0005, 0.9995])
    found = subject.thresholds.of(settings.protection)
    assert found == pytest.approx({"low": low, "high": high})
    shown = rows["faulty_largest_logit"].to_numpy()
    alarm = ~((shown >= low) & (shown <= high)) | rows["nonfinite_logits"].to_numpy()
    assert (rows["alarm"] == alarm).all()
    assert 0 < alarm.sum() < len(rows)
    both = subject.thresholds.of(OpenSet(name="open_set", calibrate_on="all", q=0.0))
    every = np.concatenate([known, unknown])
    assert both == {"low": every.min(), "high": every.max()}
    assert both["low"] < low  # unknown digits have smaller logits


def test_wrong_input_is_named() -> None:
    for options, named in (
        ({"score": "odin"}, "score='odin'"),
        ({"limits_by": "margin"}, "limits_by='margin'"),
        ({"calibrate_on": "ood"}, "calibrate_on='ood'"),
        ({"q": 1.0}, "q=1.0"),
        ({"g_l": 1.1}, "g_l=1.1"),
        ({"g_u": 0.9}, "g_u=0.9"),
    ):
        with pytest.raises(ProgipError, match=named):
            OpenSet(name="open_set", **options)
    with pytest.raises(ProgipError, match="largest_logit of a clean"):
        limits([1.0, NAN])
    with pytest.raises(ProgipError, match=r"probes=\[confidence\]"):
        cell_settings(composed(["protection=open_set", "protection.score=msp"], CONF))
