"""Deployed detectors of protections that learn from faults: trained by a cell, saved, timed."""

from pathlib import Path

import numpy as np
import pytest
from tiny_networks import tiny_network
from torch import Tensor

from progip.campaign.subject import prepare
from progip.config import cell_settings, composed
from progip.deploy.calibration import guarded_cell, guarded_detector, guarded_subject
from progip.deploy.detector import GuardedDetector
from progip.deploy.runtime import Effort, measure_runtime
from progip.deploy.saving import load_detector, save_detector
from progip.errors import ProgipError
from progip.ood_methods.odin import ODIN
from progip.protections.facer_like import FacerLike

CONF = Path(__file__).resolve().parents[2] / "conf"
LEARNING = [
    "probes=['layer_traces:.*conv2']", "batch_size=16",
    "dataset.calibration=60", "dataset.limit=120",
    "ood_dataset.calibration=40", "ood_dataset.limit=80",
    "fault_model.layers='.*conv2|linear'", "fault_model.bits=[29]",
]  # fmt: skip
TRAINED = ["label_by=any", "runs=300", "images=20", "epochs=2", "hidden=8", "false_alarms=0.2"]
WORDS = ["protection=facer_like", *LEARNING, *(f"protection.{word}" for word in TRAINED)]


@pytest.fixture(scope="module")
def detector() -> GuardedDetector:
    return guarded_cell(cell_settings(composed(WORDS, CONF)))


def test_a_cell_trains_its_detector(detector: GuardedDetector) -> None:
    settings = cell_settings(composed(WORDS, CONF))
    subject = prepare(settings.subject)
    protection = detector.protection
    assert isinstance(protection, FacerLike)
    images = subject.tested.images["id"][:48]
    traces = subject.golden.evaluation("id")["layer_traces"].to_numpy(zero_copy_only=False)
    expected = protection.anomaly(np.stack(list(traces[:48]))) > detector.thresholds["anomaly"]
    answer = detector(images)
    assert 0 < answer.alarm.sum() < 48
    assert answer.alarm.tolist() == expected.tolist()
    assert set(answer.stage) == {"", "anomaly"}
    with pytest.raises(ProgipError, match="has learnt nothing yet"):
        guarded_subject(subject, FacerLike(name="facer_like"))


def test_what_it_learnt_is_saved_with_the_layers_it_looks_at(
    detector: GuardedDetector, tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    save_detector(detector, path)
    fresh = cell_settings(composed(WORDS, CONF)).protection
    method = cell_settings(composed(WORDS, CONF)).subject.ood_method
    images = prepare(cell_settings(composed(WORDS, CONF)).subject).tested.images["id"][:48]
    loaded = load_detector(path, detector.network, method, fresh)
    assert [probe.label for probe in loaded.probes] == ["layer_traces:.*conv2"]
    for one, other in zip(detector(images), loaded(images), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_that_has_learnt_nothing_is_refused_with_what_to_do(images: Tensor) -> None:
    parts = {"train": [(images, images[:, 0, 0, 0].long() * 0)], "id_images": images[:20]}
    protection = FacerLike(name="mine")
    refusal = "protection 'mine' learns from faults.*load_state.*guarded_cell"
    with pytest.raises(ProgipError, match=refusal):
        guarded_detector(tiny_network(), ODIN(name="o", std=[0.5] * 3), protection, **parts)  # type: ignore[arg-type]


def test_it_is_timed_where_the_evaluation_leaves_something_to_learn() -> None:
    trained = cell_settings(composed(WORDS, CONF)).protection
    few = Effort(seconds=0, repetitions=10)
    everywhere = cell_settings(composed([*LEARNING, "fault_model.layers=null"], CONF))
    with pytest.raises(ProgipError, match="the evaluation leaves no layer"):
        measure_runtime(everywhere, [trained], 1, few)
    found = measure_runtime(cell_settings(composed(LEARNING, CONF)), [trained], 1, few)
    assert {v["protection"]: len(v["wall"]) for v in found["variants"]} == {
        "none": 10,
        "facer_like": 10,
    }
