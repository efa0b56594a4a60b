"""Bounded activations: formulas and bounds against closed forms and NumPy; what is refused."""

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import TinyBlock, labelled, tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.protections.bounded.base import BoundedActivation, bound_parameters
from progip.protections.bounded.data import accuracy, collected
from progip.protections.bounded.fitact import FitAct
from progip.protections.bounded.ft_clipact import FTClipAct
from progip.protections.bounded.proact import ProAct
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.bounded.replacement import NAN_POLICIES, REPLACEMENTS, bounded
from progip.protections.correcting import key_of, protected_evidence

NAN, INF = float("nan"), float("inf")


def by_hand(y: float, b: float, replacement: str, slope: float) -> float:
    """The formulas of the methods, for one finite value."""
    if replacement == "zero":
        return y if y <= b else 0.0
    if replacement == "clamp":
        return min(y, b)
    x = -slope * (y - b)
    return y / (1 + math.exp(-x)) if x > -700 else 0.0


@given(
    st.lists(st.floats(0, 2.0**99, width=32), min_size=1, max_size=6),
    st.floats(0, 100, width=32),
    st.sampled_from(REPLACEMENTS),
    st.sampled_from([0.5, 20.0]),
)
def test_formulas(values: list[float], bound: float, replacement: str, slope: float) -> None:
    y = torch.tensor(values)
    found, changed = bounded(y[None], torch.tensor(bound), replacement, slope, "zero")
    wanted = [by_hand(v, bound, replacement, slope) for v in values]
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=2e-5, atol=1e-6)
    assert changed[0].tolist() == [v > bound for v in values]


def test_soft_zero_has_half_its_value_at_the_bound_and_moves_with_it() -> None:
    bound = torch.tensor(3.0, requires_grad=True)
    value, _ = bounded(torch.tensor([[3.0]]), bound, "soft_zero", 20.0, "zero")
    assert value.item() == pytest.approx(1.5)
    (gradient,) = torch.autograd.grad(value.sum(), bound)
    assert gradient.item() == pytest.approx(20 * 3 * 0.25)  # slope y s (1 - s)


@pytest.mark.parametrize("replacement", REPLACEMENTS)
@pytest.mark.parametrize("policy", NAN_POLICIES)
def test_nan_and_infinity(replacement: str, policy: str) -> None:
    y = torch.tensor([[1.0, NAN, INF]])
    found, changed = bounded(y, torch.tensor(2.0), replacement, 20.0, policy)
    assert found[0, 2] == (2.0 if replacement == "clamp" else 0.0)
    wanted = {"zero": 0.0, "bound": 2.0, "propagate": NAN}[policy]
    assert found[0, 1].item() == pytest.approx(wanted, nan_ok=True)
    assert changed[0].tolist() == [False, policy != "propagate", True]


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_a_bound_that_a_fault_made_nan_lets_nothing_through(replacement: str) -> None:
    found, changed = bounded(torch.ones(1, 3), torch.tensor(NAN), replacement, 20.0, "zero")
    assert found.tolist() == [[0, 0, 0]]
    assert changed.all()


class Reused(nn.Module):
    """One ReLU module, called twice: on feature maps and on features; a ReLU6 behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(144, 5)
        self.six = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).flatten(1)
        return self.six(3 * self.relu(self.linear(x)))


SHAPES = {
    "layer": [(), (), ()],
    "channel": [(4, 1, 1), (5,), (5,)],
    "neuron": [(4, 6, 6), (5,), (5,)],
    "hybrid": [(), (), (5,)],
}


@pytest.mark.parametrize("granularity", SHAPES)
def test_bounds_are_numpys_maxima(granularity: str, images: Tensor) -> None:
    network = Reused().eval().requires_grad_(False)
    protection = RangerBound(name="r", granularity=granularity, images=40)
    state = protection.fit(network, labelled(images.split([7, 1, 32])))
    assert list(state) == [key_of(c, "bound") for c in [("relu", 0), ("relu", 1), ("six", 0)]]
    first = F.relu(network.conv(images))
    second = F.relu(network.linear(first.flatten(1)))
    for bound, output, shape in zip(
        state.values(), (first, second, F.relu6(3 * second)), SHAPES[granularity], strict=True
    ):
        values = output.numpy().max(0)
        over = tuple(i for i in range(values.ndim) if not shape or shape[i] == 1)
        wanted = values.max(axis=over, keepdims=bool(shape)) if over else values
        assert tuple(bound.shape) == shape
        np.testing.assert_allclose(bound.numpy(), wanted, rtol=1e-6)


def test_rows_within_their_bounds_pass_bit_for_bit_and_faults_are_replaced(images: Tensor) -> None:
    network = tiny_network()
    protection = RangerBound(name="r", granularity="neuron", images=40)
    protected = protection.protect(network, protection.fit(network, labelled([images])))
    assert torch.equal(protected(images), network(images))
    assert not protected_evidence(protected)["flagged"].any()

    def fault(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        output[3, 0, 0, 0], output[5, 1, 2, 2] = 1e30, NAN
        return output

    def zeroed(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        output[3, 0, 0, 0], output[5, 1, 2, 2] = 0, 0
        return output

    protected[0].register_forward_hook(fault, prepend=True)
    found = protected(images)
    network[1].register_forward_hook(zeroed)
    assert torch.equal(found, network(images))
    flagged = protected_evidence(protected)["flagged"].nonzero()[:, 0].tolist()
    assert flagged == [3, 5]


def test_search_images_are_a_choice_of_the_seed_and_not_those_to_choose_by(images: Tensor) -> None:
    labels = torch.arange(40)

    def parts(size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(images.split(size), labels.split(size), strict=True))

    data = collected("p", parts(7), 12, 9, 3)
    again = collected("p", parts(40), 12, 9, 3)
    assert data.labels.tolist() == again.labels.tolist()
    assert torch.equal(data.images, images[data.labels])
    assert torch.equal(data.validation, images[data.validation_labels])
    assert len({*data.labels.tolist(), *data.validation_labels.tolist()}) == 21
    assert collected("p", parts(7), 12, 9, 4).labels.tolist() != data.labels.tolist()


def test_too_few_images_are_shared_out(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = collected("p", labelled([images]), 300, 100, 0)
    assert (len(data.images), len(data.validation)) == (30, 10)
    assert "30 to search with and 10 to choose by" in caplog.text
    with pytest.raises(ProgipError, match="at least 2 training images"):
        collected("p", labelled([images[:1]]), 1, 1, 0)


def test_nan_logits_are_of_no_class() -> None:
    logits = torch.tensor([[NAN, 0.0], [3.0, 1.0]])
    assert accuracy(nn.Identity(), logits, torch.tensor([0, 0])) == 50.0


class Functional(nn.Module):
    """A block that calls relu as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.tail = Tail()

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.block(x))


class Tail(nn.Module):
    """Its last relu is a method of the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(144, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).relu()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Functional(), r"layer 'tail' calls relu as a function.*with_own_modules"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.GELU()), "no nn.ReLU or nn.ReLU6"),
    ],
)
def test_networks_without_a_relu_to_bound(network: nn.Module, message: str, images: Tensor) -> None:
    with pytest.raises(ProgipError, match=message):
        RangerBound(name="r").fit(network.eval(), labelled([images]))


def test_clean_values_that_are_not_finite(images: Tensor) -> None:
    with pytest.raises(ProgipError, match="layer '1': its clean outputs are not finite"):
        RangerBound(name="r", images=40).fit(tiny_network(), labelled([images * INF]))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RangerBound, {"replacement": "tresh"}, "replacement='tresh' is not one of zero, clamp"),
        (RangerBound, {"granularity": "pixel"}, "granularity='pixel'"),
        (RangerBound, {"nan_policy": "upper"}, "nan_policy='upper'"),
        (RangerBound, {"replacement": "soft_zero", "slope": 0}, "slope=0 must be above 0"),
        (RangerBound, {"slope": 5.0}, "slope=5.0 has no effect with replacement=zero"),
        (RangerBound, {"validation": 9}, "validation=9 has no effect"),
        (RangerBound, {"images": 0}, "images=0 must be at least 1"),
        (RangerBound, {"seed": -1}, "seed=-1 must not be negative"),
        (FTClipAct, {"granularity": "neuron"}, "granularity=neuron cannot be searched"),
        (FTClipAct, {"rates": [1e-5]}, "at least two, rising"),
        (FTClipAct, {"rates": [1e-5, 1e-6]}, "at least two, rising"),
        (FTClipAct, {"rates": [0.5, 2.0]}, "at most 1"),
        (FTClipAct, {"least_rounds": 5}, "rounds=4 must be at least least_rounds"),
        (FTClipAct, {"validation": 0}, "validation=0 must be at least 1"),
        (FitAct, {"replacement": "zero"}, "has no gradient to learn by"),
        (FitAct, {"epochs": 0}, "epochs=0"),
        (FitAct, {"penalty": -1.0}, "penalty=-1.0 must not be negative"),
        (ProAct, {"decays": []}, "decays"),
        (ProAct, {"replacement": "clamp"}, "has no gradient to learn by"),
        (ProAct, {"tolerance": -0.1}, "tolerance=-0.1"),
    ],
)
def test_wrong_options(kind: type[BoundedActivation], options: dict, message: str) -> None:
    with pytest.raises(
        ProgipError, match=rf"protection 'p': .*{message}|protection 'p': {message}"
    ):
        kind(name="p", **options)


def test_bounds_are_parameters_of_the_copy_alone(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), TinyBlock(4)).eval()
    protection = RangerBound(name="r", images=40, granularity="channel")
    protected = protection.protect(network, protection.fit(network, labelled([images])))
    assert [tuple(p.shape) for p in bound_parameters(protected).values()] == [(4, 1, 1)]
    assert not bound_parameters(network)
    assert not bound_parameters(network[1])
