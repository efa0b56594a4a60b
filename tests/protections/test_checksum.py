"""Checksum algebra on random layers; the checks of activations."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from progip.protections.neuron_gradients.activation_check import (
    TOLERANCE,
    exact_deviation,
    remainder,
)
from progip.protections.neuron_gradients.checksum import Checksum

layers = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d]),
        "groups": st.sampled_from([1, 2, 4]),
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 3),
        "kernel_size": st.integers(1, 3),
        "stride": st.integers(1, 2),
        "dilation": st.integers(1, 2),
        "padding": st.integers(0, 2),
        "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
        "bias": st.booleans(),
        "seed": st.integers(0, 2**20),
    }
)


def built(options: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """A layer and (3, ...) inputs for it."""
    chosen = dict(options)
    kind, groups, seed = (chosen.pop(key) for key in ("kind", "groups", "seed"))
    inputs, outputs = chosen.pop("inputs") * groups, chosen.pop("outputs") * groups
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind is nn.Linear:
            layer = nn.Linear(inputs, outputs, chosen["bias"])
            return layer, torch.randn(3, 5, inputs) if seed % 2 else torch.randn(3, inputs)
        layer = kind(inputs, outputs, groups=groups, **chosen)
        axes = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[kind]
        return layer, torch.randn(3, inputs, *[7 - i for i in range(axes)])


@settings(max_examples=100)
@given(options=layers, weights=st.sampled_from(["ones", "index"]), per_pixel=st.booleans())
@torch.no_grad()
def test_the_memory_order_does_not_matter(
    options: dict[str, Any], weights: str, per_pixel: bool
) -> None:
    if options["kind"] is not nn.Conv2d:
        return
    layer, x = built(options)
    y = layer(x)
    check = Checksum(layer, weights, per_pixel)
    last = torch.channels_last
    plain = check.deviation(x, y)
    turned = check.deviation(x.contiguous(memory_format=last), y.contiguous(memory_format=last))
    if per_pixel:  # the predicted pixels come from a convolution, whose kernel rounds
        assert torch.allclose(plain, turned, rtol=0, atol=1e-4)
    else:
        assert torch.allclose(plain, turned, rtol=0, atol=1e-9)


@settings(max_examples=150)
@given(
    options=layers,
    weights=st.sampled_from(["ones", "index"]),
    per_pixel=st.booleans(),
    where=st.floats(0, 1, exclude_max=True),
    size=st.sampled_from([0.5, -3.0, 1e30, float("inf"), float("nan")]),
)
@torch.no_grad()
def test_clean_outputs_agree_and_one_error_does_not(
    options: dict[str, Any], weights: str, per_pixel: bool, where: float, size: float
) -> None:
    layer, x = built(options)
    y = layer(x)
    check = Checksum(layer, weights, per_pixel)
    clean = check.deviation(x, y).flatten(1).amax(1)
    bound = 1e-4 * (1 if per_pixel else np.sqrt(y[0].numel()))
    assert bool((clean < bound).all())
    wrong = y.clone()
    index = int(where * y[1].numel())
    wrong[1].view(-1)[index] += size
    found = check.deviation(x, wrong).flatten(1).amax(1)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])  # other rows know nothing of it
    assert not found[1] <= bound
    if abs(size) < 10:  # C_L moves by the error times its weight
        axis = -1 if isinstance(layer, nn.Linear) else 1
        neuron = np.unravel_index(index, y[1].shape)[axis if axis < 0 else 0]
        weight = 1 if weights == "ones" else int(neuron) + 1
        assert found[1].item() == pytest.approx(abs(size) * weight, abs=2 * bound + 1e-5)


def test_the_checksum_is_the_sum_of_the_source() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 4), torch.randn(2, 6)
    y = torch.randn(2, 4)  # not the layer's: the whole difference shows
    v = torch.arange(1.0, 5.0)
    left, right = y @ v, x @ (v @ layer.weight) + v @ layer.bias
    found = Checksum(layer, "index").deviation(x, y)[:, 0]
    torch.testing.assert_close(found.float(), (left - right).abs())


def test_a_convolution_is_checked_group_by_group_at_every_pixel() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3, groups=2, padding=1), torch.randn(2, 4, 5, 5)
    y = layer(x).detach()
    y[0, 4, 2, 3] += 1
    found = Checksum(layer).deviation(x, y)
    assert found.shape == (2, 2, 5, 5)
    assert (found > 0.5).nonzero().tolist() == [[0, 1, 2, 3]]
    summed = Checksum(layer, per_pixel=False).deviation(x, y)
    torch.testing.assert_close(summed, torch.tensor([[1.0], [0.0]]).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("weights", "seen"), [("ones", False), ("index", True)])
def test_opposite_errors_cancel_without_weights(weights: str, seen: bool) -> None:
    layer, x = nn.Linear(6, 4), torch.randn(1, 6)
    y = layer(x).detach()
    y[0, 0], y[0, 2] = y[0, 0] + 1, y[0, 2] - 1
    assert bool(Checksum(layer, weights).deviation(x, y).amax() > 1e-3) == seen


def test_a_weight_that_changes_after_encoding_shows() -> None:
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
    check = Checksum(layer)
    with torch.no_grad():
        layer.weight[1, 0, 1, 1] += 1
        assert check.deviation(x, layer(x)).amax() > 0.1


def flipped(values: Tensor, bit: int) -> Tensor:
    mask = torch.tensor([1 << bit], dtype=torch.int64).to(torch.int32) if bit < 31 else -(2**31)
    return (values.view(torch.int32) ^ mask).view(torch.float32)


def literal_rate(bit: int, count: int = 20_000) -> float:
    """Share of flips of one bit of a ReLU's output y = x > 0 that the remainder shows."""
    x = torch.randn(count, generator=torch.Generator().manual_seed(bit)).abs()
    return float((~(remainder(x, flipped(x, bit)) <= TOLERANCE)).double().mean())


@pytest.mark.parametrize("bit", [0, 4, 8, 12, 18, 22, 23, 24, 25, 28, 29, 30, 31])
def test_remainder_equals_numpys(bit: int) -> None:
    x = torch.randn(500).abs()
    y = flipped(x, bit)
    with np.errstate(invalid="ignore"):
        expected = np.abs(np.fmod(y.double().numpy(), x.double().numpy()))
    torch.testing.assert_close(remainder(x, y).double(), torch.from_numpy(expected), equal_nan=True)


@pytest.mark.parametrize(
    ("bit", "low", "high"),
    [
        (0, 0.48, 0.52), (4, 0.62, 0.68),  # of tiny flips only those that make y smaller
        (5, 0.78, 0.84), (12, 0.997, 1.0), (13, 0.99, 1.0), (18, 0.99, 1.0), (22, 0.99, 1.0),
        (23, 0.49, 0.55), (24, 0.63, 0.69), (25, 0.83, 0.89),
        (28, 0.0, 0.001), (29, 0.0, 0.001), (30, 0.24, 0.30), (31, 0.0, 0.0),
    ],
)  # fmt: skip
def test_the_literal_check_has_holes(bit: int, low: float, high: float) -> None:
    assert low <= literal_rate(bit) <= high


@pytest.mark.parametrize("bit", range(32))
def test_the_exact_check_has_none(bit: int) -> None:
    x = torch.randn(1000)
    y = flipped(torch.relu(x), bit)
    deviation = exact_deviation(nn.ReLU(), x, y)
    if bit == 31:  # of a zero it only changes the sign, which is no error
        assert torch.equal(~(deviation <= 0), x > 0)
    else:
        assert bool((~(deviation <= 0)).all())


def test_what_the_literal_check_says_at_and_below_zero() -> None:
    x = torch.tensor([0.0, 0.0, -2.0, -2.0, -2.0, 3.0, float("nan")])
    y = torch.tensor([0.0, 1.0, 0.0, -2.0, 0.5, 0.0, 0.0])
    # 0 mod x = 0 and -2 mod -2 = 0: neither a wrong zero nor a skipped ReLU shows
    assert (~(remainder(x, y) <= TOLERANCE)).tolist() == [
        False, True, False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Tanh()])
def test_the_exact_check_holds_for_every_activation(activation: nn.Module) -> None:
    x = torch.randn(4, 33)
    y = activation(x)
    assert exact_deviation(activation, x, y).max() == 0
    y[2, 7] += 1
    assert (exact_deviation(activation, x, y) > 0).nonzero().tolist() == [[2, 7]]
