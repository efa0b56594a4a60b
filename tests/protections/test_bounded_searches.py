"""Searches for bounds: against plain loops and exhaustive search; killed, and gone on with."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.models.calls import hook_calls
from progip.protections.bounded import ft_clipact
from progip.protections.bounded.base import BoundedActivation
from progip.protections.bounded.data import accuracy, collected
from progip.protections.bounded.fitact import FitAct
from progip.protections.bounded.ft_clipact import FTClipAct
from progip.protections.bounded.proact import ProAct
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.correcting import key_of
from progip.storage.whole_files import Checkpoint

NAN, INF = float("nan"), float("inf")


def batches(images: Tensor, classes: int = 4) -> list[tuple[Tensor, Tensor]]:
    """In the classes that the tiny network says, so that it is never wrong without faults."""
    labels = tiny_network()(images).argmax(1)
    return list(zip(images.split(7), labels.split(7), strict=True))


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
