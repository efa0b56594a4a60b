"""Probes that learn from training images, and those that look at layers."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.spatial.distance import cdist
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.campaign.runner import run_cell
from progip.campaign.subject import prepare
from progip.config import cell_settings, composed, resolved
from progip.contracts import check_probe
from progip.deploy.calibration import guarded_detector
from progip.deploy.saving import load_detector, save_detector
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.engine.stages import looked_at
from progip.engine.super_layers import super_layers
from progip.errors import ProgipError
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.models.densenet import DenseNetModule
from progip.models.resnet_cifar import CifarResNetModule
from progip.ood_methods.odin import ODIN
from progip.ood_methods.openmax import OpenMax
from progip.probes import Observation, probes_named
from progip.probes.class_distance import ClassDistance
from progip.probes.layer_traces import LayerTraces
from progip.probes.openmax import UnknownProbability
from progip.protections.open_set import OpenSet
from progip.records import PASSES

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 4


def training() -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose logits are its images, 400 of them, most of them in their class."""
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(400) % CLASSES
    logits = torch.randn(400, CLASSES, generator=draw) + 3 * torch.eye(CLASSES)[label]
    return nn.Flatten(), logits[:, :, None, None], label


def observed(logits: Tensor) -> Observation:
    nothing = logits.new_zeros(len(logits), 0)
    return Observation(logits, nothing, nothing, nothing, nothing)


def test_class_distance_is_the_distance_to_the_nearest_of_its_own() -> None:
    network, images, label = training()
    probe = ClassDistance()
    probe.fit(network, zip(images.split(50), label.split(50), strict=True))
    logits = images.flatten(1).double().numpy()
    klass = logits.argmax(1)
    right = klass == label.numpy()
    means = np.stack([logits[right & (klass == c)].mean(0) for c in range(CLASSES)])
    apart = cdist(logits, means)[np.arange(400), klass]
    largest = np.array([apart[right & (klass == c)].max() for c in range(CLASSES)])
    found = probe.columns(observed(images.flatten(1)), 400)["class_distance"]
    np.testing.assert_allclose(found, apart / largest[klass], rtol=1e-12)
    assert found[right].max() == pytest.approx(1)
    assert 0 < (~right).sum() < 100
    check_probe(ClassDistance())


def test_unknown_probability_is_that_of_the_method() -> None:
    network, images, label = training()
    batches = [(images, label)]
    probe, method = UnknownProbability(), OpenMax(name="openmax")
    probe.fit(network, batches)
    method.fit(network, batches)
    found = probe.columns(observed(images.flatten(1)), 400)["unknown_probability"]
    assert (found == -method.score(network, images).numpy()).all()
    broken = images.flatten(1).clone()
    broken[0, 1], broken[1, 2] = torch.nan, torch.inf
    found = probe.columns(observed(broken), 3)["unknown_probability"]
    assert np.isnan(found).tolist() == [True, True, False]
    check_probe(UnknownProbability())


@pytest.mark.parametrize("probe", [ClassDistance, UnknownProbability])
def test_too_few_training_images_are_named(probe: type) -> None:
    network, images, label = training()
    with pytest.raises(ProgipError, match=f"probe '{probe.name}': class 0 has 0 correctly"):
        probe().fit(network, [(images[label > 0], label[label > 0])])


@pytest.mark.parametrize("score", ["distance", "openmax"])
def test_a_campaign_and_a_saved_detector_agree(tmp_path: Path, score: str) -> None:
    probe = {"distance": "class_distance", "openmax": "openmax"}[score]
    column = {"distance": "class_distance", "openmax": "unknown_probability"}[score]
    chosen = [f"probes=[{probe}]", f"protection=open_set_{score}", "fault_model.bits=[28,30]"]
    cfg = composed([f"outputs={tmp_path}", "runs=100", "batch_size=16", *chosen], ROOT / "conf")
    settings = cell_settings(cfg)
    folder = run_cell(settings, resolved(cfg))
    (shard,) = folder.glob("part-*")
    rows = pq.read_table(shard).to_pandas()
    subject = prepare(settings.subject)
    high = subject.thresholds.of(settings.protection)["high"]
    finite = ~rows["nonfinite_logits"]
    assert (rows["alarm"] == ~(finite & (rows[f"faulty_{column}"] <= high))).all()
    assert 0 < rows["alarm"].sum() < len(rows)
    tested = subject.tested
    train = list(tested.training_batches())
    known = tested.data["id", "calibration"][0]
    options = {"name": f"open_set_{score}", "score": score}
    method = type(tested.method)(**vars(tested.method))
    detector = guarded_detector(
        tested.network, method, OpenSet(**options), train=train, id_images=known, batch_size=16
    )
    assert detector.thresholds["high"] == pytest.approx(high, rel=1e-4)
    images = torch.cat([tested.images["id"][:30], 40 * tested.images["ood"][:30]])
    answer = detector(images)
    save_detector(detector, tmp_path / "detector.safetensors")
    again = load_detector(
        tmp_path / "detector.safetensors", tested.network, method, OpenSet(**options)
    )
    assert (again(images).alarm == answer.alarm).all()
    assert 0 < answer.alarm.sum() < len(images)


def test_traces_are_the_means_of_every_channel_in_both_executors(images: Tensor) -> None:
    network, method = tiny_network(), ODIN(name="odin", std=[0.5])
    with profiling(network, images[:2]) as ranges:
        method.fit(network, [(images, torch.zeros(len(images)))])
    probe = LayerTraces(".*")
    pipeline = Pipeline(network, method, ranges, [probe])
    layers = pipeline.looked_at(images)[probe.name].axis
    expected: dict = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            expected[name] = output if output.dim() == 2 else output.mean((2, 3))

        return hook

    modules = dict(network.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name, _ in layers]
    network(images[:8])
    for handle in handles:
        handle.remove()
    seen = pipeline(images[:8]).measured[probe.name]
    assert len(layers) > 5
    torch.testing.assert_close(seen, torch.cat([expected[name] for name, _ in layers], 1))
    traced = Traced(pipeline, images[:8])
    for fault_pass in PASSES:
        sites = find_sites(network, method, images[:2])[fault_pass]
        model = SingleBitFlip(name="flip", layer_types=["Conv2d", "Linear"], bits=[22, 30])
        chosen = model.select(sites)
        plan = model.plan(chosen, len(images), 0, fault_pass, 0, 200)
        reference = ReferenceExecutor(pipeline, chosen, fault_pass, images, 8).run(plan)
        incremental = IncrementalExecutor(traced, chosen, fault_pass, images).run(plan)
        found, wanted = incremental[probe.name], reference[probe.name]
        np.testing.assert_array_equal(found, wanted)
        clean = pipeline(images[:8]).measured[probe.name].numpy()
        moved = (wanted != np.resize(clean, wanted.shape)).any()
        assert moved or fault_pass != "first_forward"
    check_probe(LayerTraces())


def test_stages_are_the_calls_on_every_path_before_the_shape_changes() -> None:
    images = torch.randn(2, 3, 32, 32)
    found = {}
    for network in (CifarResNetModule(20, 10), DenseNetModule(40, 12, 0.5, 10)):
        network.eval().requires_grad_(False)
        looked = looked_at("probe", network, images, "").axis
        assert set(looked) <= super_layers(network, images)
        found[type(network).__name__] = [layer for layer, _ in looked]
    stages = ["layer1.2.relu2", "layer2.2.relu2", "layer3.2.relu2", "flatten", "linear"]
    assert found["CifarResNetModule"] == stages
    dense = ["conv1", "trans1.relu", "trans1.conv1", "trans1.pool", "trans2.relu", "trans2.conv1"]
    assert found["DenseNetModule"] == [*dense, "trans2.pool", "relu", "flatten", "fc"]


def test_wrong_input_is_named(images: Tensor) -> None:
    with pytest.raises(ProgipError, match=r"'layer_traces:\(': .*|not a regular expression"):
        looked_at("probe", tiny_network(), images[:2], "(")
    with pytest.raises(ProgipError, match="'nowhere' matches no layer; there are"):
        looked_at("probe", tiny_network(), images[:2], "nowhere")
    with pytest.raises(ProgipError, match="options stand after a colon"):
        probes_named(["energy:x"])
    assert [probe.label for probe in probes_named(["layer_traces:a.*"])] == ["layer_traces:a.*"]
