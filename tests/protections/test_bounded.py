"""Bounded activations: formulas, bounds and searches against closed forms and plain loops."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import TinyBlock, labelled, tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.calls import hook_calls
from progip.protections.bounded import fitact, ft_clipact, proact
from progip.protections.bounded.base import BoundedActivation, bound_parameters
from progip.protections.bounded.data import accuracy, collected
from progip.protections.bounded.fitact import FitAct
from progip.protections.bounded.ft_clipact import FTClipAct
from progip.protections.bounded.proact import ProAct
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.bounded.replacement import NAN_POLICIES, REPLACEMENTS, bounded
from progip.protections.correcting import key_of, protected_evidence
from progip.storage.whole_files import Checkpoint

NAN, INF = float("nan"), float("inf")


def batches(images: Tensor, classes: int = 4) -> list[tuple[Tensor, Tensor]]:
    """In the classes that the tiny network says, so that it is never wrong without faults."""
    labels = tiny_network()(images).argmax(1)
    return list(zip(images.split(7), labels.split(7), strict=True))


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


def searching(images: Tensor) -> list[BoundedActivation]:
    some = {"images": 24, "validation": 16}
    return [
        FTClipAct(name="ft", rates=[1e-4, 3e-3], maps=2, rounds=3, least_rounds=2, **some),
        FitAct(name="fit", epochs=4, batch_size=8, learning_rate=0.05, penalty=0.1, **some),
        ProAct(name="pro", epochs=2, decays=[0.4, 0.004], batch_size=8, warm_up=0, **some),
    ]


@pytest.mark.parametrize("number", range(3))
def test_a_killed_search_goes_on_and_ends_as_if_never_killed(
    number: int,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    network, given = tiny_network(), batches(images)
    protection = searching(images)[number]
    whole = protection.fit(network, given)
    path = tmp_path / "kept.pt"
    saved = Checkpoint.save
    left = 0

    def save(self: Checkpoint, state: dict) -> None:
        nonlocal left
        saved(self, state)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    for left in (1, 2):  # noqa: B007
        monkeypatch.setattr(Checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            protection.fit(network, given, Checkpoint(path))
        monkeypatch.setattr(Checkpoint, "save", saved)
    again = protection.fit(network, given, Checkpoint(path))
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert whole.keys() == again.keys()
    assert all(line.endswith(" left") for line in caplog.messages)
    assert caplog.messages[-1].endswith(", 0 s left")


@pytest.mark.parametrize("number", range(3))
def test_a_search_leaves_the_network_as_it_was(number: int, images: Tensor) -> None:
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    searching(images)[number].fit(network, batches(images))
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    assert not any(p.requires_grad for p in network.parameters())


def test_fitact_follows_the_plain_loop(images: Tensor) -> None:
    """The sheet's recipe written out with functions of PyTorch, on a network of one ReLU."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))
    network.eval().requires_grad_(False)
    labels = torch.arange(40) % 4
    options = {"images": 40, "validation": 0, "epochs": 3, "batch_size": 16}
    protection = FitAct(name="f", learning_rate=0.05, penalty=0.01, weight_decay=0.2, **options)
    state = protection.fit(network, [(images, labels)])
    data = collected("f", [(images, labels)], 40, 0, 0)
    hidden = F.relu(network[1](data.images.flatten(1)))
    bound = hidden.amax(0).clone().requires_grad_(True)
    adam = torch.optim.Adam([bound], lr=0.05, weight_decay=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 3)
    for epoch in range(3):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(epoch))
        for part in order.split(16):
            y = hidden[part]
            logits = network[3](y * torch.sigmoid(20 * (bound - y)))
            loss = F.cross_entropy(logits, data.labels[part]) + 0.01 * bound.square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            bound.data.clamp_(min=0)
        schedule.step()
    torch.testing.assert_close(state[key_of(("2", 0), "bound")], bound.detach())


@pytest.mark.parametrize("tolerance", [0.0, 5.0])
def test_proacts_guard_is_never_violated(images: Tensor, tolerance: float) -> None:
    network, given = tiny_network(), batches(images)
    protection = ProAct(
        name="p", epochs=3, decays=[40.0, 0.4, 0.004], batch_size=8, warm_up=1,
        images=24, validation=16, tolerance=tolerance, learning_rate=0.2,
    )  # fmt: skip
    data = collected("p", given, 24, 16, 0)
    ranger = RangerBound(name="r", granularity="hybrid", replacement="soft_zero", images=24)
    start = ranger.search(network, data, Checkpoint(None))
    assert data.accuracy(ranger.with_bounds(network, start)) == 100.0
    state = protection.fit(network, given)
    assert data.accuracy(protection.protect(network, state)) >= 100.0 - tolerance
    last = max(start, key=lambda call: start[call].numel())
    drawn = [state[key_of(call, "bound")].mean() < start[call].mean() for call in start]
    assert any(drawn)  # strong decays do draw bounds in
    assert state[key_of(last, "bound")].numel() == 256


def test_ft_clipacts_interval_finds_what_exhaustive_search_finds(images: Tensor) -> None:
    torch.manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4))
    labels = torch.arange(40) % 4
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):  # learns them by heart
        adam.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        adam.step()
    network.eval().requires_grad_(False)
    protection = FTClipAct(
        name="ft", rates=[1e-4, 1e-3, 3e-3], maps=6, rounds=5, least_rounds=5,
        images=20, validation=20,
    )  # fmt: skip
    data = collected("ft", [(images, labels)], 20, 20, 0)
    call = ("2", 0)
    found = protection.search(network, data, Checkpoint(None))[call]
    highest = F.relu(network[1](data.images.flatten(1))).max()
    area = ft_clipact._Area(protection, network, {call: highest.clone()}, data)
    grid = {part: area.of(call, part * highest.item() / 64) for part in range(1, 65)}
    assert area.of(call, found.item()) >= max(grid.values()) - 1.0
    assert max(grid.values()) > grid[1] + 5  # there was something to find
    assert max(grid.values()) > area.of(call, INF) + 5  # and bounds do help


def test_ft_clipacts_area_by_hand(images: Tensor) -> None:
    """Accuracy under the same flips made by hand in copies of the network."""
    network, given = tiny_network(), batches(images)
    protection = FTClipAct(name="ft", rates=[0.0, 2e-2], maps=3, images=20, validation=20)
    data = collected("ft", given, 20, 20, 0)
    bounds = RangerBound(name="r").search(network, data, Checkpoint(None))
    area = ft_clipact._Area(protection, network, bounds, data)
    call = next(iter(bounds))
    found = area.of(call, 1.5)
    accuracies = []
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    tensors = [p for m in layers for p in (m.weight, m.bias)]
    for hits in area._hits[1]:
        clean = [p.clone() for p in tensors]
        for site, neuron, mask in zip(hits.site, hits.neuron, hits.mask, strict=True):
            words = tensors[site].data.numpy().reshape(-1).view(np.uint32)
            words[neuron] ^= mask
        limits = {**bounds, call: torch.tensor(1.5)}
        handles = hook_calls(
            network,
            {layer for layer, _ in bounds},
            lambda c, _, y, limits=limits: torch.where(y <= limits[c], y, 0.0),
        )
        accuracies.append(accuracy(network, data.validation, data.validation_labels))
        for handle in handles:
            handle.remove()
        for tensor, values in zip(tensors, clean, strict=True):
            tensor.data.copy_(values)
    limited = protection.with_bounds(network, {**bounds, call: torch.tensor(1.5)})
    first = data.accuracy(limited)
    assert found == pytest.approx(0.5 * (first + np.mean(accuracies)) * 0.5)
    assert len(set(accuracies)) > 1


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
        (RangerBound, {"slope": 0}, "slope=0 must be above 0"),
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
    assert fitact.log is not proact.log
