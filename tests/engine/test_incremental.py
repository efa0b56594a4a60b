"""The incremental executor gives the columns of the reference executor, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.engine.incremental import IncrementalExecutor, NotTraceable, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import NoFault, SingleBitFlip
from progip.ood_methods.base import OODMethod
from progip.ood_methods.mahalanobis import Mahalanobis
from progip.ood_methods.odin import ODIN
from progip.records import PASSES

ALL_TYPES = ["Conv2d", "Linear", "ReLU", "BatchNorm2d", "MaxPool2d", "AdaptiveAvgPool2d", "Flatten"]


def images_of(count: int, size: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pipeline_of(network: nn.Module, images: Tensor, kind: str = "odin") -> Pipeline:
    options = {"std": [0.5] * 3, "epsilon": 0.02}
    method: OODMethod = ODIN(name="odin", **options)
    if kind == "mahalanobis":
        method = Mahalanobis(name="mahalanobis", **options)
    with profiling(network, images[:2]) as ranges, torch.no_grad():
        method.fit(network, [(images, torch.arange(len(images)) % 4)])
        network(images)
    return Pipeline(network, method, ranges)


def assert_equal(expected: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> None:
    assert expected.keys() == got.keys()
    for name, column in expected.items():
        assert column.dtype == got[name].dtype, name
        np.testing.assert_array_equal(column, got[name], err_msg=name)  # NaN equals NaN


def compare(
    pipeline: Pipeline, images: Tensor, batch: int, runs: int, types: list[str], seed: int = 0
) -> None:
    traced = Traced(pipeline, images[:batch])
    sites = find_sites(pipeline.network, pipeline.method, images[:2])
    for fault_pass in PASSES:
        model = SingleBitFlip(name="flip", layer_types=types)
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(images), seed, fault_pass, 0, runs)
        reference = ReferenceExecutor(pipeline, chosen, fault_pass, images, batch)
        incremental = IncrementalExecutor(traced, chosen, fault_pass, images)
        assert_equal(reference.run(plan), incremental.run(plan))


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_reference_at_every_kind_of_site(
    kind: str, memory_format: torch.memory_format
) -> None:
    images = images_of(19).contiguous(memory_format=memory_format)
    network = tiny_network().to(memory_format=memory_format)
    compare(pipeline_of(network, images, kind), images, 8, 300, ALL_TYPES)


class Branches(nn.Module):
    """Concatenation, a reused module, functional operations, tokens merged into the batch."""

    def __init__(self, width: int, depth: int, reuse: bool, tokens: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.relu = nn.ReLU()
        self.side = nn.Conv2d(width, 2, 1)
        self.token = nn.Linear(width + 2, width)
        self.head = nn.Linear(width, 4)
        self.reuse, self.tokens = reuse, tokens

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.gelu(self.stem(x))
        for layer in self.body:
            x = x + self.relu(layer(x))
            if self.reuse:
                x = layer(x)
        x = torch.cat([x, torch.sigmoid(self.side(x))], 1)
        rows = x.flatten(2).transpose(1, 2)
        if self.tokens:
            rows = rows.reshape(-1, rows.shape[-1])
        rows = self.token(rows)
        return self.head(rows.view(len(x), -1, rows.shape[-1]).mean(1))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    width=st.integers(2, 5),
    depth=st.integers(1, 3),
    reuse=st.booleans(),
    tokens=st.booleans(),
    batch=st.sampled_from([4, 8]),
    seed=st.integers(0, 2**16),
)
def test_equals_reference_on_random_networks(
    width: int, depth: int, reuse: bool, tokens: bool, batch: int, seed: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Branches(width, depth, reuse, tokens).eval().requires_grad_(False)
    images = images_of(batch + 3, 8, seed)
    compare(pipeline_of(network, images), images, batch, 60, ["Conv2d", "Linear", "ReLU"], seed)


def prepared() -> tuple[Pipeline, Tensor, Traced]:
    images = images_of(10)
    pipeline = pipeline_of(tiny_network(), images)
    return pipeline, images, Traced(pipeline, images[:4])


@pytest.mark.parametrize("fault_pass", PASSES)
def test_null_campaign_equals_golden(fault_pass: str) -> None:
    pipeline, images, traced = prepared()
    model = NoFault(name="none")
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 0, "null", 0, 100)
    observed = IncrementalExecutor(traced, sites, fault_pass, images).run(plan)
    score = pipeline.method.score(pipeline.network, images[:8]).numpy()
    sample = plan["sample_index"].to_numpy()
    within = sample < 8
    np.testing.assert_array_equal(observed["score"][within], score[sample[within]])
    np.testing.assert_array_equal(observed["value_before"], observed["value_after"])


@pytest.mark.parametrize("fault_pass", PASSES)
def test_result_does_not_depend_on_the_order_or_size_of_a_plan(fault_pass: str) -> None:
    pipeline, images, traced = prepared()
    model = SingleBitFlip(name="flip")
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 0, "order", 0, 120)
    executor = IncrementalExecutor(traced, sites, fault_pass, images)
    whole = executor.run(plan)
    order = np.random.default_rng(0).permutation(len(plan))
    moved = executor.run(plan.take(order))
    assert_equal({name: column[order] for name, column in whole.items()}, moved)
    few = executor.run(plan.slice(50, 7))
    assert_equal({name: column[50:57] for name, column in whole.items()}, few)


class _ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)) * (2 if bool(x.sum() > 0) else 1))


class _Mixing(_ByValue):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)) - x.mean())


@pytest.mark.parametrize(("network", "reason"), [(_ByValue, "tracing failed"), (_Mixing, "mixes")])
def test_says_why_a_network_cannot_be_traced(network: type[nn.Module], reason: str) -> None:
    images = images_of(4)
    pipeline = pipeline_of(network().eval().requires_grad_(False), images)
    with pytest.raises(NotTraceable, match=reason):
        Traced(pipeline, images)


def test_tracing_leaves_the_gradient_mode_alone() -> None:
    prepared()
    assert torch.is_grad_enabled()


def test_too_little_memory_is_refused() -> None:
    pipeline, images, traced = prepared()
    sites = find_sites(pipeline.network, pipeline.method, images[:2])["first_forward"]
    with pytest.raises(NotTraceable, match="MiB"):
        IncrementalExecutor(traced, sites, "first_forward", images, memory=1000)


def test_linear_layers_give_a_row_the_same_bits_at_every_position() -> None:
    layer = nn.Linear(342, 10).requires_grad_(False)  # rows that are not 16-byte aligned
    x = torch.randn(16, 342)
    assert torch.equal(layer(x).roll(1, 0), layer(x.roll(1, 0)))
