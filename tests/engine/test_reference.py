"""The reference executor against a slower one that shares no code with it."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_networks import TinyBlock, tiny_network
from torch import Tensor, nn

from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.base import Hits, digests
from progip.fault_models.flipped_bits import WordError
from progip.fault_models.single_bit_flip import NoFault, SingleBitFlip
from progip.ood_methods.base import OODMethod
from progip.ood_methods.mahalanobis import Mahalanobis
from progip.ood_methods.odin import ODIN
from progip.records import PASSES

ALL_TYPES = ["Conv2d", "Linear", "ReLU", "BatchNorm2d", "MaxPool2d", "AdaptiveAvgPool2d", "Flatten"]
EXACT = ("class", "score", "grad_max", "range_excess_first", "range_excess_second")


def pipeline_of(network: nn.Module, images: Tensor, kind: str) -> Pipeline:
    options = {"std": [0.5] * 3, "epsilon": 0.02}
    method: OODMethod = ODIN(name="odin", **options)
    if kind == "mahalanobis":
        method = Mahalanobis(name="mahalanobis", **options)
    with profiling(network, images[:2]) as ranges:
        method.fit(network, [(images, torch.arange(len(images)) % 4)])
    return Pipeline(network, method, ranges)


def flipped(tensor: Tensor, neuron: int, mask: int) -> Tensor:
    """Every row of the batch gets the same fault; NumPy, no torch bit tricks."""
    values = tensor.detach().numpy().copy()
    flat = values.reshape(len(values), -1)
    flat[:, neuron] = (flat[:, neuron].copy().view(np.uint32) ^ np.uint32(mask)).view(np.float32)
    return torch.from_numpy(values)


Hit = tuple[str, int, int]  # layer, neuron, bits


def slow_run(
    pipeline: Pipeline, images: Tensor, sample: int, hits: list[Hit], fault_pass: str
) -> dict[str, float]:
    """One run by itself: PyTorch's own module hooks on a copy of the network, a batch of copies."""
    network = copy.deepcopy(pipeline.network)
    method = pipeline.method
    x = images[sample].repeat(8, 1, 1, 1)
    armed = {"forward": fault_pass == "first_forward"}

    def arm(layer: str, neuron: int, mask: int) -> None:
        def forward_hook(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
            if not armed["forward"]:
                return None
            return _Swap.apply(output, flipped(output, neuron, mask))

        def backward_hook(_: nn.Module, grad_input: tuple, __: object) -> tuple:
            return (flipped(grad_input[0], neuron, mask),)

        module = network.get_submodule(layer)
        if fault_pass == "backward":
            module.register_full_backward_hook(backward_hook)
        else:
            module.register_forward_hook(forward_hook)

    for hit in hits:
        arm(*hit)
    x = x.requires_grad_(True)
    logits, loss = method.first_forward(network, x)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    perturbed = method.perturb(x.detach(), gradient)
    armed["forward"] = fault_pass == "second_forward"
    with torch.no_grad():
        score = method.second_forward(network, perturbed)
    finite = not torch.isnan(logits[0]).any()
    return {
        "class": int(logits[0].argmax()) if finite else -1,
        "grad_max": float(gradient[0].abs().max()),
        "score": float(score[0]),
    }


class _Swap(torch.autograd.Function):
    """The faulty value forward, the gradient straight through: a flip is not differentiated."""

    @staticmethod
    def forward(ctx: object, output: Tensor, faulty: Tensor) -> Tensor:
        return faulty.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", PASSES)
def test_equals_one_run_at_a_time(images: Tensor, kind: str, fault_pass: str) -> None:
    pipeline = pipeline_of(tiny_network(), images, kind)
    model = SingleBitFlip(name="f", layer_types=ALL_TYPES)
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 7, kind, 0, 120)
    found = ReferenceExecutor(pipeline, sites, fault_pass, images, 16).run(plan)
    for i, row in enumerate(plan.to_pylist()):
        hit = (row["layer"], row["neuron"], 1 << row["bit"])
        slow = slow_run(pipeline, images, row["sample_index"], [hit], fault_pass)
        assert found["class"][i] == slow["class"], row
        np.testing.assert_allclose(
            found["grad_max"][i], slow["grad_max"], rtol=1e-4, err_msg=str(row)
        )
        np.testing.assert_allclose(found["score"][i], slow["score"], rtol=1e-5, err_msg=str(row))


@pytest.mark.parametrize("fault_pass", PASSES)
def test_many_hits_equal_one_run_at_a_time(images: Tensor, fault_pass: str) -> None:
    pipeline = pipeline_of(tiny_network(), images, "odin")
    model = WordError(name="f", rate=0.003, layer_types=ALL_TYPES)
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 7, "k", 0, 80)

    def draw(part: pa.Table) -> Hits:
        return model.hits(sites, part, 7, "k")

    hits = draw(plan)
    found = {
        size: ReferenceExecutor(pipeline, sites, fault_pass, images, size, draw).run(plan)
        for size in (16, 7)
    }
    counts = np.bincount(hits.row, minlength=len(plan))
    assert 0 in counts
    assert counts.max() > 5
    golden = golden_table(pipeline, images, np.zeros(len(images)), 16)
    for i, sample in enumerate(plan["sample_index"].to_pylist()):
        mine = [
            (sites[s].layer, int(n), int(m))
            for row, s, n, m in zip(*hits[:4], strict=True)
            if row == i
        ]
        slow = slow_run(pipeline, images, sample, mine, fault_pass)
        for size, columns in found.items():
            assert columns["class"][i] == slow["class"], (i, size)
            for name in ("grad_max", "score"):
                np.testing.assert_allclose(columns[name][i], slow[name], rtol=1e-4, err_msg=str(i))
        if not mine:
            for name in EXACT:
                assert found[16][name][i] == golden[name][sample].as_py(), name
    for columns in found.values():
        np.testing.assert_array_equal(columns["hits"], counts)
        np.testing.assert_array_equal(columns["fault_digest"], digests(hits, len(plan)))
        assert np.isnan(columns["value_before"]).all()


def test_a_hit_that_does_not_fire_stops_the_run(images: Tensor) -> None:
    pipeline = pipeline_of(tiny_network(), images, "mahalanobis")
    model = WordError(name="f", rate=0.5, layer_types=["Linear"])
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])["first_forward"])
    plan = model.plan(sites, len(images), 1, "k", 0, 5)
    executor = ReferenceExecutor(
        pipeline, sites, "backward", images, 16, lambda part: model.hits(sites, part, 1, "k")
    )  # Mahalanobis never differentiates through the head
    with pytest.raises(RuntimeError, match="planned faults did not fire exactly once"):
        executor.run(plan)


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", PASSES)
def test_null_campaign_is_golden_bit_for_bit(images: Tensor, kind: str, fault_pass: str) -> None:
    pipeline = pipeline_of(tiny_network(), images, kind)
    model = NoFault(name="none", layer_types=ALL_TYPES)
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 7, kind, 0, 200)
    found = ReferenceExecutor(pipeline, sites, fault_pass, images, 16).run(plan)
    golden = golden_table(pipeline, images, np.zeros(len(images)), 16)
    samples = plan["sample_index"].to_numpy()
    for name in EXACT:
        np.testing.assert_array_equal(found[name], golden[name].to_numpy()[samples], err_msg=name)
    np.testing.assert_array_equal(found["value_before"], found["value_after"])


@pytest.mark.parametrize("fault_pass", PASSES)
def test_the_planned_bit_is_flipped_and_batches_do_not_matter(
    images: Tensor, fault_pass: str
) -> None:
    pipeline = pipeline_of(tiny_network(), images, "odin")
    model = SingleBitFlip(name="f")
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 1, "k", 0, 150)
    by_size = {
        size: ReferenceExecutor(pipeline, sites, fault_pass, images, size).run(plan)
        for size in (1, 7, 64)
    }
    found = by_size[64]
    bits = found["value_before"].view(np.uint32) ^ found["value_after"].view(np.uint32)
    np.testing.assert_array_equal(bits, 1 << plan["bit"].to_numpy().astype(np.uint32))
    for size in (1, 7):
        np.testing.assert_array_equal(by_size[size]["class"], found["class"])
        np.testing.assert_allclose(by_size[size]["score"], found["score"], rtol=1e-6)


class Reused(nn.Module):
    """One activation module called twice, as in many published networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.flatten, self.fc = nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        return self.fc(self.flatten(self.relu(self.conv2(x))))


@pytest.mark.parametrize("fault_pass", PASSES)
def test_each_call_of_a_reused_module_is_a_site(images: Tensor, fault_pass: str) -> None:
    torch.manual_seed(0)
    pipeline = pipeline_of(Reused().eval().requires_grad_(False), images, "odin")
    assert set(pipeline.ranges.source) == {("relu", 0), ("relu", 1), ("flatten", 0)}
    assert pipeline.ranges.source["flatten", 0] == (("relu", 1),)
    model = SingleBitFlip(name="f", layer_types=["ReLU"], bits=[30])
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    assert sorted(s.call for s in sites) == [0, 1]
    plan = model.plan(sites, len(images), 1, "k", 0, 60)
    executor = ReferenceExecutor(pipeline, sites, fault_pass, images, 16)
    found = executor.run(plan)
    bits = found["value_before"].view(np.uint32) ^ found["value_after"].view(np.uint32)
    assert (bits == 1 << 30).all()


def test_a_fault_that_does_not_fire_stops_the_run(images: Tensor) -> None:
    pipeline = pipeline_of(tiny_network(), images, "mahalanobis")
    model = SingleBitFlip(name="f", layer_types=["Linear"])
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])["first_forward"])
    plan = model.plan(sites, len(images), 1, "k", 0, 5)
    executor = ReferenceExecutor(pipeline, sites, "backward", images, 16)
    with pytest.raises(RuntimeError, match="did not fire exactly once; the first, in layer '6'"):
        executor.run(plan)


def test_sites_of_every_pass(images: Tensor) -> None:
    pipeline = pipeline_of(tiny_network(), images, "mahalanobis")
    sites = find_sites(pipeline.network, pipeline.method, images[:2])
    first = {s.layer: s for s in sites["first_forward"]}
    assert first["0"].shape == (4, 8, 8)
    assert first["0"].macs == 4 * 8 * 8 * 3 * 9
    assert first["6"].macs == 4 * 4
    assert [s.key for s in sites["second_forward"]] == [s.key for s in sites["first_forward"]]
    backward = {s.layer: s for s in sites["backward"]}
    assert "6" not in backward  # the distance is not differentiated through the head
    assert backward["0"].shape == (3, 8, 8)
    assert backward["0"].macs == first["0"].macs


def test_ranges_are_the_extremes_of_each_activation(images: Tensor) -> None:
    network = tiny_network()
    pipeline = pipeline_of(network, images, "odin")
    block = network[2]
    assert isinstance(block, TinyBlock)
    first = torch.relu(network[0](images))
    second = torch.relu(first + block.norm(block.conv(first)))
    assert pipeline.ranges.source == {
        ("1", 0): (("1", 0),), ("2.relu", 0): (("2.relu", 0),), ("3", 0): (("2.relu", 0),),
        ("4", 0): (("2.relu", 0),), ("5", 0): (("2.relu", 0),),
    }  # fmt: skip
    assert pipeline.ranges.high["1", 0] == pytest.approx(first.max().item(), rel=1e-6)
    assert pipeline.ranges.high["2.relu", 0] == pytest.approx(second.max().item(), rel=1e-6)
    assert pipeline.ranges.low["1", 0] == 0
    observed = pipeline(images)
    assert observed.excess_first.max() == 0  # profiled on these very images
    assert observed.excess_first.shape == (40, 5)
    assert pipeline(images * 3).excess_first.max() > 0
    assert pipeline(images * float("nan")).excess_first.isnan().all()
