"""A guarded detector says what a campaign's rows say of the same execution, faults included."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from guarded import PROTECTIONS, made, method_of, reused
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.campaign.judge import golden_evidence
from progip.deploy.calibration import guarded_detector
from progip.deploy.detector import Answer, GuardedDetector
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import find_range_sites
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.base import OODMethod
from progip.probes import DetectionProbe, Observation, RangeProbe
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger
from progip.records import NO_CLASS, PASSES

LAYERS = ["Conv2d", "Linear", "ReLU", "BatchNorm2d", "MaxPool2d", "AdaptiveAvgPool2d", "Flatten"]


class InPlaceOfThePipeline:
    """Lets the reference executor put its faults into a guarded detector."""

    def __init__(self, detector: GuardedDetector) -> None:
        self.detector, self.network, self.ranges = detector, detector.network, detector.ranges
        self.probes = (DetectionProbe(), RangeProbe(self.ranges.sites))
        self.answers: list[Answer] = []

    def __call__(self, images: Tensor, enter: Any) -> Observation:
        with self.detector:  # hooked after the faults, which belong to the layers
            self.answers.append(self.detector(images, enter))
        nothing = torch.zeros(len(images))
        sites = torch.zeros(len(images), len(self.ranges.sites))
        return Observation(sites[:, :1], nothing, nothing, sites, sites)

    def column(self, name: str, count: int) -> np.ndarray:
        joined: np.ndarray = np.concatenate([getattr(a, name) for a in self.answers])[:count]
        return joined


@pytest.mark.parametrize("fault_pass", PASSES)
@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("network", [tiny_network(), reused()], ids=["tiny", "reused"])
def test_alarms_are_those_of_the_campaign(
    network: nn.Module, kind: str, fault_pass: str, images: Tensor
) -> None:
    sites = find_sites(network, fitted(network, kind, images), images[:2])[fault_pass]
    model = SingleBitFlip(name="flip", layer_types=LAYERS, bits=[1, 22, 25, 28, 30, 31])
    chosen = model.select(sites)
    plan = model.plan(chosen, len(images), 0, fault_pass, 0, 400)
    observed: dict[str, np.ndarray] = {}
    raised = {}
    for name, (protection, form) in PROTECTIONS.items():
        detector = made(network, kind, protection, form, images)
        detector.detach()
        if not observed:
            pipeline = Pipeline(network, detector.method, detector.ranges)
            observed = ReferenceExecutor(pipeline, chosen, fault_pass, images, 16).run(plan)
            where = {"first_forward": "nonfinite_logits", "second_forward": "nonfinite_score"}
            assert fault_pass == "backward" or observed[where[fault_pass]].any()
        stand_in = InPlaceOfThePipeline(detector)
        ReferenceExecutor(stand_in, chosen, fault_pass, images, 16).run(plan)  # type: ignore[arg-type]
        expected = protection.judge(observed, detector.thresholds)
        got = {n: stand_in.column(n, len(plan)) for n in Answer._fields}
        assert got["alarm"].tolist() == expected.alarm.tolist(), name
        assert got["stage"].tolist() == expected.stage.tolist(), name
        assert got["label"].tolist() == observed["class"].tolist(), name
        np.testing.assert_array_equal(got["score"], observed["score"])
        fine = observed["score"] > detector.ood_threshold
        assert got["in_distribution"].tolist() == fine.tolist()
        raised[name] = int(got["alarm"].sum())
    assert raised.pop("none") == 0
    assert any(0 < count < len(plan) for count in raised.values()), raised
    if fault_pass == "first_forward":
        assert all(0 < count < len(plan) for count in raised.values()), raised


def fitted(network: nn.Module, kind: str, images: Tensor) -> OODMethod:
    method = method_of(kind)
    method.fit(network, [(images, torch.arange(len(images)) % 4)])
    return method


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
def test_thresholds_are_those_of_the_pipeline(
    network: nn.Module, kind: str, images: Tensor
) -> None:
    detector = made(network, kind, ProGIP(name="progip"), "fused", images)
    pipeline = Pipeline(network, detector.method, detector.ranges)
    parts = (images[:24] + 0.1, images[24:] * 1.5)
    tables = [golden_table(pipeline, part, np.zeros(len(part)), 32) for part in parts]
    clean = golden_evidence(pa.concat_tables(tables))
    vanishes = detector.method.gradient_vanishes
    assert detector.thresholds == detector.protection.calibrate(clean, gradient_vanishes=vanishes)
    above = tables[0]["score"].to_numpy() > detector.ood_threshold
    assert above.sum() == 23  # the least count that is 95 % of 24
    assert not detector(images[:24] + 0.1).alarm.any()


@pytest.mark.parametrize("form", ["fused", "per_layer"])
def test_hooks_come_and_go(network: nn.Module, images: Tensor, form: str) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in network.modules())

    sites = len(find_range_sites(network, images[:2]))
    detector = made(network, "odin", Ranger(name="ranger"), form, images)
    assert hooks() == sites == 5
    before = detector(images)
    network(images * 100)  # somebody else uses the network: no business of the detector
    detector.attach()
    assert hooks() == sites
    after = detector(images)
    np.testing.assert_array_equal(before.alarm, after.alarm)
    detector.detach()
    assert hooks() == 0
    with detector:
        assert hooks() == sites
    assert hooks() == 0
    made(network, "odin", ProGIP(name="progip"), form, images)
    assert hooks() == 0  # what does not watch ranges hooks nothing


def test_a_failed_call_leaves_nothing_watched(network: nn.Module, images: Tensor) -> None:
    detector = made(network, "odin", Ranger(name="ranger"), "fused", images)
    before = detector(images)

    def trip(name: str) -> None:
        if name == "second_forward":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detector(images, trip)
    for _ in range(3):
        network(images[:5])
    np.testing.assert_array_equal(detector(images).alarm, before.alarm)


def test_a_nan_image_has_no_class_and_alarms(network: nn.Module, images: Tensor) -> None:
    for name, (protection, form) in PROTECTIONS.items():
        detector = made(network, "odin", protection, form, images)
        broken = images[:3].clone()
        broken[1] = torch.nan
        answer = detector(broken)
        detector.detach()
        assert answer.label[1] == NO_CLASS
        assert not answer.in_distribution[1]
        assert answer.alarm[1] == (name != "none")


def test_rows_stand_alone(network: nn.Module, images: Tensor) -> None:
    detector = made(network, "odin", Ranger(name="ranger"), "fused", images)
    odd = images.clone()
    odd[7] *= 1000
    alarm = detector(odd).alarm
    assert alarm[7]
    np.testing.assert_array_equal(np.delete(alarm, 7), np.delete(detector(images).alarm, 7))


def test_without_ood_images_thresholds_are_narrower(network: nn.Module, images: Tensor) -> None:
    both = made(network, "odin", ProGIP(name="p"), "fused", images)
    alone = guarded_detector(
        network,
        method_of("odin"),
        ProGIP(name="p"),
        train=[(images, torch.arange(40) % 4)],
        id_images=images[:24] + 0.1,
    )
    assert alone.thresholds["gradient_high"] <= both.thresholds["gradient_high"]
    assert alone.ood_threshold == both.ood_threshold


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("form", ["fused", "per_layer"])
def test_on_cuda_as_on_the_cpu(network: nn.Module, images: Tensor, form: str) -> None:
    answers = {}
    for device in ("cpu", "cuda"):
        detector = made(
            network.to(device), "odin", Ranger(name="r", margin=0.1), form, images.to(device)
        )
        answers[device] = detector(
            images.to(device) * torch.linspace(0.5, 3, 40).view(-1, 1, 1, 1).to(device)
        )
        detector.detach()
    np.testing.assert_array_equal(answers["cpu"].alarm, answers["cuda"].alarm)
    np.testing.assert_array_equal(answers["cpu"].label, answers["cuda"].label)
