"""A network whose numbers are rounded: against PyTorch's own types, NumPy and plain hooks."""

import numpy as np
import pytest
import torch
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.emulated import Emulated
from progip.number_formats.fixed_point import FixedPoint
from progip.number_formats.ieee import Ieee
from progip.number_formats.integer import Integer

BF16 = {"name": "bf16", "exponent": 8, "fraction": 7}


def images_of(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def prepared(code: Emulated, network: nn.Module | None = None) -> nn.Module:
    network = tiny_network() if network is None else network
    return code.prepare(network, lambda: iter([images_of(6), images_of(6, 2)]))


def by_hooks(convert, quantise: tuple[str, ...]) -> nn.Module:
    """The same by plain hooks and PyTorch's own casts."""
    network = tiny_network()
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if "weights" in quantise:
            for parameter in module.parameters():
                parameter.copy_(convert(parameter))
        if "inputs" in quantise:
            module.register_forward_pre_hook(lambda m, given: (convert(given[0]),))
        if "outputs" in quantise:
            module.register_forward_hook(lambda m, given, output: convert(output))
    return network


@pytest.mark.parametrize(
    "quantise", [["outputs"], ["weights"], ["inputs"], ["outputs", "weights", "inputs"]]
)
def test_bfloat16_by_hooks(quantise: list[str]) -> None:
    expected = by_hooks(lambda x: x.to(torch.bfloat16).float(), tuple(quantise))
    network = prepared(Ieee(**BF16, quantise=quantise))
    images = images_of(5)
    assert torch.equal(network(images), expected(images))
    assert not torch.equal(network(images), tiny_network()(images))


def test_gradients_are_rounded_where_asked_for() -> None:
    given = images_of(4).requires_grad_()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).requires_grad_(False)
    weight = linear[1].weight.clone()
    network = prepared(Ieee(**BF16, quantise=["gradients"]), linear)
    network(given).sum().backward()
    expected = weight.sum(0).to(torch.bfloat16).float().reshape(3, 8, 8)
    assert given.grad is not None
    assert torch.equal(given.grad[0], expected)


def test_profiled_scales_are_numpys_maxima() -> None:
    plain, seen = tiny_network(), {}
    for name, module in plain.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda m, g, o, name=name: seen.setdefault(name, []).append(np.abs(o.numpy()).max())
            )
    for batch in (images_of(6), images_of(6, 2)):
        plain(batch)
    network = prepared(Integer(name="int8", width=8))
    for name, maxima in seen.items():
        held = network.get_submodule(name).progip_formats["outputs"]
        assert np.float32(held.scale) == max(maxima)


def test_weights_have_scales_of_their_own() -> None:
    network = tiny_network()
    network[6].bias.zero_()
    before = network[6].weight.clone()
    prepared(Integer(name="int4", width=4, quantise=["weights"]), network)
    after = network[6].weight
    step = float(before.abs().max()) / 8
    assert len(torch.unique(after)) <= 16
    assert float((after - before).abs().max()) <= step * 1.001  # the top code saturates
    assert (network[6].bias == 0).all()


@pytest.mark.parametrize("size", [1, 3, 7])
def test_stochastic_rounding_is_the_same_in_every_batch(size: int) -> None:
    code = FixedPoint(name="fixed", word=10, fraction=4, rounding="stochastic")
    network, images = prepared(code), images_of(7)
    whole = network(images)
    assert torch.equal(torch.cat([network(part) for part in images.split(size)]), whole)
    nearest = prepared(FixedPoint(name="fixed", word=10, fraction=4))(images)
    other = FixedPoint(name="fixed", word=10, fraction=4, rounding="stochastic", seed=1)
    assert not torch.equal(whole, nearest)
    assert not torch.equal(whole, prepared(other)(images))


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    network, images = prepared(BlockFP(name="block", width=8, exponent=3)), images_of(6)
    louder = torch.cat([images[:1], 100 * images[1:]])
    assert torch.equal(network(images)[0], network(louder)[0])
    mixing = prepared(BlockFP(name="block", width=8, exponent=3, block="tensor"))
    assert not torch.equal(mixing(images)[0], mixing(louder)[0])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"quantise": []}, "one or more of outputs, weights"),
        ({"quantise": ["everything"]}, "one or more of outputs, weights"),
        ({"rounding": "up"}, "not one of nearest, stochastic"),
        ({"seed": 3}, "seed=3 has no effect with rounding=nearest"),
    ],
)
def test_bad_options(options: dict, why: str) -> None:
    with pytest.raises(ProgipError, match=why):
        Ieee(**{**BF16, **options})


def test_truncation_and_random_numbers_exclude_each_other() -> None:
    with pytest.raises(ProgipError, match="truncate=True has no effect with rounding=stochastic"):
        FixedPoint(name="fixed", word=8, fraction=4, truncate=True, rounding="stochastic")


def test_bad_networks() -> None:
    with pytest.raises(ProgipError, match="no layer of type LSTM"):
        prepared(Ieee(**BF16, layer_types=["LSTM"]))
    broken = tiny_network()
    broken[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ProgipError, match="'weight' of layer '0' holds values that are not finite"):
        prepared(Ieee(**BF16, quantise=["weights"]), broken)
    dead = tiny_network()
    for parameter in dead[0].parameters():
        parameter.zero_()
    with pytest.raises(ProgipError, match="outputs of layer '0' are all 0"):
        prepared(Integer(name="int8", width=8), dead)
    with pytest.raises(ProgipError, match="which have no gradients"):
        prepared(Integer(name="int8", width=8, quantise=["outputs", "gradients"]))
