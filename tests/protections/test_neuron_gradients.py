"""Differences, running statistics and layers against NumPy, SciPy and results by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.protections.neuron_gradients.differences import (
    circular_differences,
    first_of_run,
    suppressed,
)
from progip.protections.neuron_gradients.layers import Layer, find_layers
from progip.protections.neuron_gradients.running import RunningMoments, student_quantile


def test_differences_by_hand() -> None:
    y = torch.tensor([[1.0, 4.0, 2.0, 2.0]])
    assert circular_differences(y, -1).tolist() == [[-1.0, 3.0, -2.0, 0.0]]


def test_differences_are_the_cross_correlation_with_the_kernel_of_the_source() -> None:
    y = torch.randn(2, 5, 3, 4)
    padded = torch.cat([y[:, -1:], y, y[:, :1]], 1)  # circular padding for a kernel of length 3
    kernel = torch.tensor([-1.0, 1.0, 0.0])
    expected = torch.stack(
        [sum(kernel[j] * padded[:, c + j] for j in range(3)) for c in range(5)], 1
    )
    torch.testing.assert_close(circular_differences(y, -3), expected)


def flags(*positions: int, size: int = 6) -> Tensor:
    return torch.isin(torch.arange(size), torch.tensor(positions, dtype=torch.int64))


@pytest.mark.parametrize(
    ("flagged", "first"),
    [
        ((), ()),
        ((2,), (2,)),
        ((2, 3), (2,)),
        ((0, 5), (5,)),  # a run around the end
        ((0, 1, 4, 5), (4,)),
        ((1, 2, 4), (1, 4)),
        ((0, 1, 2, 3, 4), (0,)),
        ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)),  # a full circle has no first
    ],
)
def test_first_of_every_circular_run(flagged: tuple, first: tuple) -> None:
    assert first_of_run(flags(*flagged), -1).tolist() == flags(*first).tolist()
    stacked = torch.stack([flags(*flagged), flags(3)]).T.reshape(1, 6, 2)  # along another axis
    expected = torch.stack([flags(*first), flags(3)]).T.reshape(1, 6, 2)
    assert first_of_run(stacked, -2).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("y", "all_flagged", "first", "iterative"),
    [
        ([0, 1, 0, 1, 0, 1], (), (), ()),
        ([0, 1, 90, 1, 0, 1], (2, 3), (2,), (2,)),
        ([0, 1, 0, 1, 0, 90], (0, 5), (5,), (5,)),  # the last neuron's neighbour is the first
        ([90, 1, 0, 1, 0, 1], (0, 1), (0,), (0,)),
        ([0, 1, 90, 70, 0, 1], (2, 3, 4), (2,), (2, 3)),  # two errors side by side
        ([0, 1, 90, 88, 0, 1], (2, 4), (2, 4), (2, 3, 4)),  # they hide in each other
        ([0, 1, 90, 70, 50, 1], (2, 3, 4, 5), (2,), (2, 3, 4)),
        ([0, 90, 0, 0, 90, 0], (1, 2, 4, 5), (1, 4), (1, 4)),
    ],
)
def test_what_is_suppressed(y: list, all_flagged: tuple, first: tuple, iterative: tuple) -> None:
    values = torch.tensor([y], dtype=torch.float32)
    for locate, expected in (
        ("all_flagged", all_flagged),
        ("first_of_run", first),
        ("iterative", iterative),
    ):
        wrong = suppressed(values, lambda g: g.abs() > 5, -1, locate, rounds=3)
        assert wrong[0].tolist() == flags(*expected).tolist(), locate


def test_iterative_looks_as_often_as_it_is_told() -> None:
    values = torch.tensor([[0, 1, 90, 70, 50, 1]], dtype=torch.float32)
    for rounds, expected in ((1, (2,)), (2, (2, 3)), (3, (2, 3, 4)), (9, (2, 3, 4))):
        wrong = suppressed(values, lambda g: g.abs() > 5, -1, "iterative", rounds)
        assert wrong[0].tolist() == flags(*expected).tolist()


@pytest.mark.parametrize(
    ("granularity", "axes"), [("neuron", 0), ("channel", (0, 2, 3)), ("layer", (0, 1, 2, 3))]
)
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_running_moments_equal_numpy_for_uneven_batches(
    granularity: str, axes: tuple, sizes: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    shift, scale = random.normal(size=(2, 1, 4, 2, 3)) * 100
    values = (random.normal(size=(sum(sizes), 4, 2, 3)) * scale + shift).astype(np.float32)
    running = RunningMoments(granularity, -3)
    for part in torch.from_numpy(values).split(sizes):
        running.add(part)
    exact = values.astype(np.float64)
    count = exact.size // exact.mean(axes).size
    assert running.count == count
    mean, sd = exact.mean(axes, keepdims=True)[0], exact.std(axes, ddof=1, keepdims=True)[0]
    np.testing.assert_allclose(running.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose((running.squares / (count - 1)).sqrt(), sd, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(running.largest, np.abs(exact).max(axes, keepdims=True)[0])


@pytest.mark.parametrize("n", [2, 3, 30, 50_000])
@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6])
def test_student_quantile_has_its_tail(n: int, alpha: float) -> None:
    t = student_quantile(alpha, n)
    assert 2 * stats.t.cdf(-t, n - 1) == pytest.approx(alpha, rel=1e-9)
    if n == 2:  # one degree of freedom is the Cauchy distribution
        assert t == pytest.approx(np.tan(np.pi * (0.5 - alpha / 2)), rel=1e-9)
    if n == 50_000:
        assert t == pytest.approx(stats.norm.isf(alpha / 2), rel=1e-3)


class Dense(nn.Module):
    """Normalisation and ReLU in front of convolutions, concatenation, a plain residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.relu, self.relu2 = nn.ReLU(), nn.ReLU()
        self.narrow, self.wide = nn.Linear(6, 5), nn.Linear(5, 7)
        self.gelu, self.head = nn.GELU(), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv(self.relu(x))], 1)
        x = self.relu2(x).mean((2, 3))
        return self.head(self.gelu(self.wide(self.narrow(x))))


def test_layers_of_dense_and_plain_networks() -> None:
    layers = find_layers(Dense().eval(), torch.randn(2, 3, 8, 8))
    stem, conv = ("stem", 0), ("conv", 0)
    assert layers == [
        Layer(("relu", 0), (stem,), -3),
        Layer(("relu2", 0), (stem, conv), -3),  # both parts of the concatenation
        Layer(("narrow", 0), (("narrow", 0),), -1),  # no activation before the next layer
        Layer(("gelu", 0), (("wide", 0),), -1),
    ]


def test_the_addition_of_a_residual_block_belongs_to_its_last_convolution() -> None:
    layers = find_layers(tiny_network(), torch.randn(2, 3, 8, 8))
    assert [(x.output[0], x.macs) for x in layers] == [
        ("1", (("0", 0),)), ("2.relu", (("2.conv", 0),)),
    ]  # fmt: skip


def test_the_last_layer_is_left_out_even_with_an_activation() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten()
    )
    assert [x.output[0] for x in find_layers(network, torch.randn(2, 3, 8, 8))] == ["1"]


def test_every_call_of_a_shared_module_is_a_layer_of_its_own() -> None:
    conv, relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)
    network = nn.Sequential(conv, relu, conv, relu, nn.Flatten(), nn.Linear(3 * 64, 2))
    assert [(x.output, x.macs) for x in find_layers(network, torch.randn(2, 3, 8, 8))] == [
        (("1", 0), (("0", 0),)), (("1", 1), (("0", 1),)),
    ]  # fmt: skip
