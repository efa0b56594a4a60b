"""FACER-like protection: its network against plain modules, its training, its alarm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from progip.config import build, composed
from progip.contracts import check_protection
from progip.errors import ProgipError
from progip.protections.base import Protection
from progip.protections.facer_like import COLUMN, FacerLike
from progip.protections.supervised import CLEAN, FAULT, OOD
from progip.protections.trace_network import CLIP
from progip.storage.whole_files import Checkpoint

CONF = Path(__file__).resolve().parents[2] / "conf"
WIDTH, ROWS = 5, 900
DIGITS = {"_target_": "progip.datasets.digits.Digits", "name": "others", "train_size": 0}


def traces(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Traces of three classes: faults have a large first channel, OOD rows a small second one."""
    draw = np.random.default_rng(seed)
    labels = np.repeat([CLEAN, OOD, FAULT], [ROWS - 300, 200, 100])
    rows = draw.normal(3, 2, (ROWS, WIDTH)).astype(np.float32)
    rows[labels == FAULT, 0] += 15
    rows[labels == OOD, 1] -= 12
    rows[-1, 3] = np.nan
    rows[-2, 4] = np.inf
    return rows, labels


def taught(checkpoint: Checkpoint | None = None, **options: Any) -> FacerLike:
    protection = FacerLike(name="facer_like", **{"epochs": 6, "hidden": 16, **options})
    rows, labels = traces(0)
    protection.learn({COLUMN: rows}, labels, labels == FAULT, checkpoint or Checkpoint(None))
    return protection


def test_inputs_are_standardised_by_clean_rows_clipped_and_flagged() -> None:
    protection = taught()
    rows, labels = traces(0)
    wrong = ~np.isfinite(rows)
    scaler = StandardScaler().fit(rows[labels < OOD].astype(np.float64))
    scaled = scaler.transform(np.where(wrong, 0, rows).astype(np.float64))
    expected = np.where(wrong, CLIP, np.clip(scaled, -CLIP, CLIP))
    assert protection._network is not None
    found = protection._network.inputs(torch.tensor(rows)).numpy()
    assert found[:, :-1] == pytest.approx(expected, abs=1e-4)
    assert np.array_equal(found[:, -1], wrong.any(1).astype(np.float32))
    assert found[:, -1].sum() == 2


def test_harmless_faults_that_blow_up_traces_leave_clean_rows_apart() -> None:
    rows, labels = traces(0)
    hit = labels == FAULT
    hit[:50] = True  # of the clean label: they changed no outcome
    rows[:50, 2] = 1e30
    protection = FacerLike(name="facer_like", epochs=6, hidden=16)
    protection.learn({COLUMN: rows}, labels, hit, Checkpoint(None))
    assert protection._network is not None
    expected = StandardScaler().fit(rows[~hit & (labels == CLEAN)].astype(np.float64))
    inputs = protection._network.inputs(torch.tensor(rows[60:500])).numpy()[:, :-1]
    assert inputs == pytest.approx(expected.transform(rows[60:500].astype(float)), abs=1e-4)
    clean = traces(3)[0][: ROWS - 300]
    assert len(np.unique(protection.anomaly(clean))) > 500


@pytest.mark.parametrize("classes", [2, 3])
def test_log_odds_are_those_of_plain_modules(classes: int) -> None:
    protection = taught(classes=classes, ood=DIGITS | {"digits": [8, 9], "classes": 2})
    state = protection.state()
    plain = nn.Sequential(nn.Linear(WIDTH + 1, 16), nn.ReLU(), nn.Linear(16, classes)).double()
    plain.load_state_dict(
        {f"{'0' if n.startswith('hidden') else '2'}.{n.partition('.')[2]}": state[n]
         for n in state if "." in n}
    )  # fmt: skip
    rows = traces(1)[0][:-2]
    assert protection._network is not None
    chance = plain(protection._network.inputs(torch.tensor(rows)).double()).softmax(1)[:, -1]
    found = protection.anomaly(rows)
    assert found == pytest.approx(torch.logit(chance).detach().numpy(), rel=1e-4, abs=1e-4)
    apart = np.concatenate([protection.anomaly(row[None]) for row in rows[:20]])
    assert np.array_equal(found[:20], apart)  # not one bit depends on the batch


def test_two_classes_take_ood_rows_for_anomalies_and_three_do_not() -> None:
    rows, labels = traces(2)
    ood = DIGITS | {"digits": [8, 9], "classes": 2}
    fault_or_clean = labels != OOD
    for classes in (2, 3):
        found = np.nan_to_num(taught(classes=classes, ood=ood).anomaly(rows), posinf=1e9)
        truth = labels[fault_or_clean] == FAULT
        assert roc_auc_score(truth, found[fault_or_clean]) > 0.99
        unknown = np.median(found[labels == OOD])
        assert (unknown > 0) == (classes == 2)


def test_the_threshold_leaves_the_wanted_false_alarms_and_nan_always_alarms() -> None:
    protection = taught(false_alarms=0.05)
    rows, labels = traces(3)
    clean = {COLUMN: rows[labels == CLEAN]}
    thresholds = protection.calibrate(clean, gradient_vanishes=False)
    assert protection.judge(clean, thresholds).alarm.sum() == 30  # 5 % of 600
    judged = protection.judge({COLUMN: rows[labels == FAULT]}, thresholds)
    assert judged.alarm.mean() > 0.95
    assert judged.alarm[-2:].all()
    assert list(judged.stage[-2:]) == ["nonfinite", "nonfinite"]
    with pytest.raises(ProgipError, match="clean calibration image is not finite"):
        protection.calibrate({COLUMN: rows}, gradient_vanishes=False)


def test_an_interrupted_training_ends_as_one_that_ran_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taught().state()
    checkpoint = Checkpoint(tmp_path / "half.pt")
    save, saved = Checkpoint.save, []

    def stop_after_three(self: Checkpoint, state: dict[str, Any]) -> None:
        save(self, state)
        saved.append(state["epoch"])
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        taught(checkpoint)
    resumed = taught(checkpoint).state()
    assert saved == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = taught(seed=1).state()
    assert not torch.equal(whole["out.weight"], other["out.weight"])


def test_what_was_learnt_can_be_taken_back_and_holds_the_contract() -> None:
    protection = taught()
    other = FacerLike(name="facer_like", epochs=6, hidden=16)
    with pytest.raises(ProgipError, match="has learnt nothing yet"):
        other.anomaly(traces(1)[0])
    other.load_state(protection.state())
    assert np.array_equal(other.anomaly(traces(1)[0]), protection.anomaly(traces(1)[0]))
    with pytest.raises(ProgipError, match="trained on 5 traces and is given 4"):
        other.anomaly(traces(1)[0][:, :4])
    check_protection(other)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("classes=4", "classes=4 must be 2 or 3"),
        ("classes=3", "classes=3 needs an OOD set to learn from"),
        ("hidden=0", "hidden=0 must be at least 1"),
        ("false_alarms=1.0", "false_alarms=1.0 must be from 0 to below 1"),
        ("label_by=all", "label_by=all is not one of critical, any"),
        ("calibrate_on=ood", "calibrate_on=ood is not one of id, all"),
        ("images=1", "images=1 must be at least 2"),
        ("+ood.digitz=3", "unexpected keyword argument"),
    ],
)
def test_wrong_options_are_named(option: str, message: str) -> None:
    key, _, value = option.partition("=")
    plus, key = ("+", key[1:]) if key.startswith("+") else ("", key)
    cfg = composed(["protection=facer_like", f"{plus}protection.{key}={value}"], CONF)
    with pytest.raises(ProgipError, match=message):
        build(cfg.protection, Protection, "protection")


def test_a_class_without_a_row_is_named() -> None:
    rows, _ = traces(0)
    protection = FacerLike(name="facer_like")
    with pytest.raises(ProgipError, match="no run of its training is of class 1 of 2"):
        protection.learn({COLUMN: rows}, *np.zeros((2, ROWS), dtype=int), Checkpoint(None))
