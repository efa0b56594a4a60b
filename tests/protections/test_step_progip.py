"""ProGIP at every gradient step: its limits one by one, its margins, a run in a cell of PRO."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.contracts import check_probe
from progip.errors import ProgipError
from progip.ood_methods.pro import PRO
from progip.probes.step_gradients import StepGradients
from progip.protections.progip import ProGIP
from progip.protections.step_progip import StepProGIP

CONF = Path(__file__).resolve().parents[2] / "conf"
DRAW = np.random.default_rng(2)
CLEAN = {
    "grad_max_highest": DRAW.uniform(2, 3, 50).astype(np.float32),
    "grad_max_lowest": DRAW.uniform(1, 2, 50).astype(np.float32),
    "score": DRAW.normal(size=50),
}


@given(st.lists(st.floats(0, 10, width=32) | st.just(float("nan")), min_size=1, max_size=4),
       st.sampled_from(["upper", "both"]), st.floats(0, 1))  # fmt: skip
def test_an_alarm_where_any_step_leaves_its_limits(
    steps: list[float], side: str, margin: float
) -> None:
    protection = StepProGIP(name="steps", gradient_side=side, gradient_margin=margin)
    limits = protection.calibrate(CLEAN, gradient_vanishes=False)
    high = float(CLEAN["grad_max_highest"].max()) * (1 + margin)
    low = float(CLEAN["grad_max_lowest"].min()) / (1 + margin) if side == "both" else -1
    fine = all(low <= value <= high for value in steps)
    evidence = {
        "grad_max_highest": np.array([np.max(steps)], np.float32),
        "grad_max_lowest": np.array([np.min(steps)], np.float32),
        "score": CLEAN["score"][:1],
    }
    alarm, stage = protection.judge(evidence, limits)
    assert alarm[0] == (not fine)
    assert stage[0] == ("" if fine else "gradient")
    least = protection.least_margins(evidence, CLEAN, limits)["gradient_margin"][0]
    if abs(least - margin) > 1e-6:
        assert (least <= margin) == fine


def test_with_one_step_it_is_progip() -> None:
    one = {"grad_max": CLEAN["grad_max_highest"], "score": CLEAN["score"]}
    both = {**CLEAN, "grad_max_lowest": CLEAN["grad_max_highest"]}
    for options in ({}, {"gradient_side": "both", "score_side": "both"}):
        usual, mine = ProGIP(name="p", **options), StepProGIP(name="s", **options)
        for vanishes in (False, True):
            assert usual.calibrate(one, gradient_vanishes=vanishes) == mine.calibrate(
                both, gradient_vanishes=vanishes
            )


@pytest.mark.parametrize("steps", [1, 3])
def test_the_probe_shows_the_gradients_of_all_steps(
    network: nn.Module, images: Tensor, steps: int
) -> None:
    check_probe(StepGradients())
    method = PRO(name="pro", std=[1.0], epsilon=0.05, steps=steps)
    found = method.detect(network, images)
    x, maxima = images, []
    for _ in range(steps):  # the gradient of the log of the confidence, times the confidence
        x = x.detach().requires_grad_(True)
        log = torch.log_softmax(network(x), 1).amax(1)
        (slope,) = torch.autograd.grad(log.sum(), x)
        gradient = slope * log.exp().detach().view(-1, 1, 1, 1)
        maxima.append(gradient.abs().flatten(1).amax(1))
        x = x - 0.05 * gradient.sign()
    expected = torch.stack([torch.stack(maxima).amax(0), torch.stack(maxima).amin(0)], 1)
    torch.testing.assert_close(StepGradients().measure(found), expected, rtol=1e-4, atol=1e-7)


def run(tmp_path: Path, *more: str) -> dict[str, np.ndarray]:
    words = [
        "ood_method=pro", "ood_method.steps=2", "ood_method.epsilon=0.05", "runs=150",
        "protection=progip_steps", "probes=[step_gradients]", "batch_size=16", "self_check=0.2",
        "dataset.calibration=40", "dataset.limit=80", "fault_model.bits=[28,29,30]",
        "ood_dataset.calibration=40", "ood_dataset.limit=80", f"outputs={tmp_path}", *more,
    ]  # fmt: skip
    cfg = composed(words, CONF)
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    return pq.read_table(next(folder.glob("part-*"))).to_pandas()


def test_faults_of_the_second_step_are_seen_at_the_second_step_alone(tmp_path: Path) -> None:
    rows = run(tmp_path, "pass=backward_2")  # self_check: the reference agrees on a fifth
    assert set(rows["fault_pass"]) == {"backward_2"}
    assert set(rows["target"]) == {"grad_input"}
    assert (rows["faulty_grad_max"] == rows["golden_grad_max"]).all()  # of the first step
    changed = rows["faulty_grad_max_highest"] != rows["golden_grad_max_highest"]
    assert changed.any()
    alarms = rows["alarm_stage"] == "gradient"
    assert alarms.any()
    assert not (alarms & ~changed & (rows["faulty_grad_max_lowest"] ==
                                     rows["golden_grad_max_lowest"])).any()  # fmt: skip
    forward = run(tmp_path, "pass=first_forward", "fault_pass.name=forward_2")
    assert set(forward["target"]) == {"output"}
    assert (forward["faulty_class"] == forward["golden_class"]).all()
    assert (forward["alarm_stage"] != "").any()


def test_a_pass_that_the_detector_has_not_is_refused_with_those_it_has(tmp_path: Path) -> None:
    for name in ("backward_3", "backward_1"):
        with pytest.raises(ProgipError, match="first_forward, backward, forward_2, backward_2"):
            run(tmp_path, f"fault_pass.name={name}")
    with pytest.raises(ProgipError, match="pass=backward_2: ood_method 'odin' has only"):
        cell_settings(composed(["pass=backward_2"], CONF))


def test_a_correction_is_seen_in_every_forward_pass(tmp_path: Path) -> None:
    words = ["protection=ranger_clip", "probes=[]", "runs=60", "self_check=0"]
    rows = run(tmp_path, *words, "pass=forward_2")
    assert (rows["hits_corrected"] > 0).any()
    assert rows.loc[rows["hits_corrected"] > 0, "alarm"].all()
