"""A student is a slice: against masks in the largest network, a loop over kernels, and counts."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import SPACES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from progip.errors import ProgipError
from progip.models.dynamic.mobilenet import MobileNetSpace
from progip.models.dynamic.network import Cost, DynamicNetwork, sort_hidden
from progip.models.dynamic.resnet import ResNetSpace
from progip.models.dynamic.space import Architecture, Space


def dynamic(family: str, seed: int = 0) -> DynamicNetwork:
    """With random statistics, scales and kernel matrices: nothing is 0 or 1 by chance."""
    torch.manual_seed(seed)
    network = DynamicNetwork(SPACES[family], 3, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    for matrix in network.matrices.values():
        matrix.data += 0.1 * torch.randn_like(matrix)
    return network.eval()


def masked(network: DynamicNetwork, architecture: Architecture) -> nn.Module:
    """The largest network with everything switched off that the student lacks."""
    whole = copy.deepcopy(network.largest)
    for stage, places in enumerate(network.space.blocks(architecture), 1):
        blocks = whole.get_submodule(f"stage{stage}")
        for number in range(len(places), len(blocks)):
            blocks[number] = nn.Identity()
    student = network.student(architecture)
    for name, module in student.named_modules():
        own = whole.get_submodule(name)
        if isinstance(module, nn.BatchNorm2d):
            mask = (torch.arange(own.num_features) < module.num_features).view(1, -1, 1, 1)
            own.register_forward_hook(lambda m, i, out, mask=mask: out * mask)
        if name.endswith("depthwise"):
            edge = (own.kernel_size[0] - module.kernel_size[0]) // 2
            kernel = nn.functional.pad(module.weight, [edge] * 4)
            own.weight.data[: len(kernel)] = kernel
    return whole


def sampled(space: Space, seed: int) -> Architecture:
    torch.manual_seed(seed)
    return space.sample()


@pytest.mark.parametrize("family", SPACES)
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_a_student_is_the_largest_network_with_the_rest_switched_off(
    family: str, seed: int
) -> None:
    network = dynamic(family)
    architecture = sampled(network.space, seed)
    images = torch.rand(4, 1, 12, 12)
    with torch.no_grad():
        expected = masked(network, architecture)(images)
        torch.testing.assert_close(network(images, architecture), expected, atol=1e-5, rtol=1e-5)
        extracted = network.student(architecture)(images)
        torch.testing.assert_close(extracted, network(images, architecture), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", SPACES)
def test_the_largest_student_is_the_whole_network(family: str) -> None:
    network = dynamic(family)
    images = torch.rand(4, 1, 12, 12)
    assert torch.equal(network(images, network.space.largest()), network(images))


@pytest.mark.parametrize("family", SPACES)
def test_only_a_students_own_weights_learn_and_count(family: str) -> None:
    network = dynamic(family).train()
    smallest = network.space.smallest()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network(torch.rand(4, 1, 12, 12), smallest).sum().backward()
    small = network.empty(smallest).state_dict()
    for name, parameter in network.largest.named_parameters():
        if name not in small:
            assert parameter.grad is None, name
            continue
        own = torch.zeros(parameter.shape, dtype=torch.bool)
        own[tuple(slice(n) for n in small[name].shape[:2])] = True
        assert parameter.grad is not None
        assert not parameter.grad[~own].any(), name
    changed = (
        network.largest.stage1[0].bn1.running_mean != before["largest.stage1.0.bn1.running_mean"]
    )
    count = len(small["stage1.0.bn1.running_mean"])
    assert changed[:count].all()
    assert not changed[count:].any()


def test_a_smaller_kernel_is_the_middle_times_the_matrices_in_turn() -> None:
    network = dynamic("mobilenet")
    smallest = network.space.smallest()
    found = network.slices(smallest)["stage1.0.depthwise.weight"].detach().numpy()
    kernels = network.largest.stage1[0].depthwise.weight.detach().numpy()
    to_five, to_three = (
        network.matrices[f"stage1_0_depthwise_{side}"].detach().numpy() for side in (5, 3)
    )
    for channel in range(len(found)):
        five = np.zeros(25)
        for out in range(25):
            five[out] = sum(
                to_five[out, 5 * i + j] * kernels[channel, 0, i + 1, j + 1]
                for i in range(5)
                for j in range(5)
            )
        middle = five.reshape(5, 5)[1:4, 1:4].reshape(-1)
        np.testing.assert_allclose(found[channel, 0].reshape(-1), to_three @ middle, atol=1e-6)


@pytest.mark.parametrize("family", SPACES)
def test_sorting_changes_no_result_and_puts_the_important_first(family: str) -> None:
    network = dynamic(family)
    images = torch.rand(4, 1, 12, 12)
    with torch.no_grad():
        before = network(images)
        sort_hidden(network)
        torch.testing.assert_close(network(images), before, atol=1e-5, rtol=1e-5)
    taken: Tensor = network.largest.stage1[0].conv3.weight.abs().sum((0, 2, 3))
    assert (taken[:-1] >= taken[1:]).all()


def test_cost_of_a_network_by_hand() -> None:
    space = ResNetSpace(
        base=[1], depth=[0], expand=[0.5], widths=[8], strides=[2], stem=4, divisor=2, width=[1.0]
    )
    macs, parameters = Cost(space, 3, (1, 8, 8))(space.largest())
    stem, pixels, smaller = 9 * 4 * 64, 64, 16
    block = 4 * 4 * pixels + 9 * 4 * 4 * smaller + 4 * 8 * smaller + 4 * 8 * smaller
    assert macs == stem + block + 8 * 3
    weights = 9 * 4 + 4 * 4 + 9 * 16 + 32 + 32 + 8 * 3 + 3
    assert parameters == weights + 2 * (4 + 4 + 4 + 8 + 8)


@pytest.mark.parametrize("family", SPACES)
def test_cost_is_what_torch_counts(family: str) -> None:
    space = SPACES[family]
    cost = Cost(space, 3, (1, 12, 12))
    for seed in range(8):
        architecture = sampled(space, seed)
        network = space.network(architecture, 3, 1).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.rand(1, 1, 12, 12))
        parameters = sum(p.numel() for p in network.parameters())
        assert cost(architecture) == (counter.get_total_flops() // 2, parameters)


def test_spaces_of_the_publication() -> None:
    assert MobileNetSpace().count() == (9**2 + 9**3 + 9**4) ** 5  # "more than 10^19"
    small = SPACES["resnet"]
    of_places = {
        name: [list(p) for p in product(values, repeat=small.places[name])]
        for name, values in small.choices.items()
    }
    every = (dict(zip(of_places, one, strict=True)) for one in product(*of_places.values()))
    assert len({tuple(small.encoded(one)) for one in every}) == small.count()
    assert ResNetSpace().divisible(0.25 * 0.65 * 256) == 40  # 41.6
    assert ResNetSpace().divisible(0.2 * 0.65 * 256) == 32  # 33.28


def test_what_is_no_architecture_is_refused() -> None:
    space = SPACES["resnet"]
    wrong = {**space.largest(), "width": [0.7, 1.0, 1.0]}
    with pytest.raises(ProgipError, match=r"here: width=\[0.7, 1.0, 1.0\] must be 3 of"):
        space.check(wrong, "here")
    with pytest.raises(ProgipError, match=r"space.kernel=\[4\] must be odd"):
        MobileNetSpace(kernel=[4])
    with pytest.raises(ProgipError, match="leave a stage no block"):
        ResNetSpace(base=[0, 1, 1, 1])
