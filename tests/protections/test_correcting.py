"""What holds for every correcting protection, whatever it corrects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tiny_networks import labelled, tiny_network
from torch import Tensor, nn

from progip.engine.incremental import Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.errors import ProgipError
from progip.models.loading import load_network
from progip.models.torchvision_model import TorchvisionModel
from progip.ood_methods.odin import ODIN
from progip.protections import correcting
from progip.protections.correcting import (
    Correcting,
    corrected_masks,
    keep_masks,
    protected_evidence,
)
from progip.protections.gradient_statistics import GradientStatistics
from progip.protections.range_restriction import RangeRestriction


def gradient(**options: Any) -> Correcting:
    return GradientStatistics(name="g", **options)


ALWAYS = {"trigger": "always", "checksum": "none", "activation_check": "none"}
PROTECTIONS = {
    "clip": RangeRestriction(name="r"),
    "zero": RangeRestriction(name="r", action="zero"),
    "coverage": RangeRestriction(name="r", coverage=0.9, nan_policy="upper"),
    "default": gradient(),
    "always": gradient(**ALWAYS),
    "sigma": gradient(threshold="sigma_k", granularity="channel", locate="first_of_run"),
    "alpha": gradient(threshold="alpha", granularity="layer", locate="iterative"),
    "pixel": gradient(checksum="pixel", activation_check="literal", margin=0.0),
    "index": gradient(checksum_weights="index"),
    "activation": gradient(checksum="none"),
}
every = pytest.mark.parametrize("protection", PROTECTIONS.values(), ids=PROTECTIONS.keys())


def protected(protection: Correcting, network: nn.Module, images: Tensor) -> nn.Module:
    state = protection.fit(network, labelled(images.split([3, 30, len(images) - 33])))
    kept = load(save({name: tensor.contiguous() for name, tensor in state.items()}))
    return protection.protect(network, kept)  # as a cache keeps it


@contextmanager
def error(network: nn.Module, layer: str, rows: list[int], value: float) -> Iterator[None]:
    """One wrong value in the output of a layer, in front of its corrections."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        wrong = output.clone()
        for row in rows:
            where = np.unravel_index(37, wrong.shape[1:])  # channels first
            wrong[(row, *where)] = value
        return wrong

    handle = network.get_submodule(layer).register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@every
def test_the_copy_shares_weights_and_names_and_leaves_the_network_alone(
    protection: Correcting, images: Tensor
) -> None:
    network = tiny_network()
    before = network(images)
    copy = protected(protection, network, images)
    assert [n for n, _ in copy.named_modules()] == [n for n, _ in network.named_modules()]
    own = dict(network.state_dict(keep_vars=True))
    assert all(tensor is own[key] for key, tensor in copy.state_dict(keep_vars=True).items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.equal(network(images), before)
    with pytest.raises(ProgipError, match="no correcting protection"):
        protected_evidence(network)


@pytest.mark.parametrize(
    "key", ["clip", "zero", "default", "sigma", "alpha", "pixel", "index", "activation"]
)
def test_fitted_images_pass_untouched(key: str, images: Tensor) -> None:
    network = tiny_network()
    copy = protected(PROTECTIONS[key], network, images)
    assert torch.equal(copy(images), network(images))
    evidence = protected_evidence(copy)
    assert evidence["flagged"].shape == evidence["zeroed"].shape == (len(images),)
    assert not evidence["flagged"].any()
    assert not evidence["zeroed"].any()


@pytest.mark.parametrize("key", ["clip", "zero", "default", "always", "pixel", "index"])
@pytest.mark.parametrize("value", [1e9, float("inf"), float("nan")])
def test_a_large_error_is_found_and_mended(key: str, value: float, images: Tensor) -> None:
    network = tiny_network()
    copy = protected(PROTECTIONS[key], network, images)
    keep_masks(copy)
    batch = images[:4]
    clean = network(batch)
    with error(copy, "2.conv", [1], value):
        mended = copy(batch)
    with error(network, "2.conv", [1], value):
        broken = network(batch)
    evidence = protected_evidence(copy)
    assert evidence["flagged"].tolist() == [False, True, False, False]
    assert 1 <= evidence["zeroed"][1] <= 8
    assert (mended[1] - clean[1]).abs().max() < 2
    assert not (broken[1] - clean[1]).abs().max() < 1e6
    assert torch.equal(mended[[0, 2, 3]], clean[[0, 2, 3]])
    mask = corrected_masks(copy)["2.relu", 0]
    assert mask.shape == (4, 4, 8, 8)
    assert mask[1].view(-1)[37]
    assert sum(int(m.sum()) for m in corrected_masks(copy).values()) == evidence["zeroed"].sum()
    keep_masks(copy, False)
    copy(batch)
    assert not corrected_masks(copy)
    assert not protected_evidence(copy)["flagged"].any()  # of the last pass alone


@every
def test_a_row_knows_nothing_of_its_batch(protection: Correcting, images: Tensor) -> None:
    copy = protected(protection, tiny_network(), images)

    def seen(batch: Tensor, row: int) -> tuple[Tensor, bool, int]:
        logits = copy(batch)
        evidence = protected_evidence(copy)
        return logits[row], bool(evidence["flagged"][row]), int(evidence["zeroed"][row])

    with error(copy, "0", [2], 1e20), error(copy, "2.conv", [2], -1e20):
        first, *found = seen(images[:8], 2)
        others = torch.cat([images[20:22], images[2:3] * 1, images[30:35] * 1e3])
        again, *also = seen(others, 2)
    assert torch.equal(first, again)
    assert found == also
    with error(copy, "0", [0], 1e20), error(copy, "2.conv", [0], -1e20):
        alone, *too = seen(images[2:3], 0)
    torch.testing.assert_close(alone, first)
    assert found == too


@every
def test_looking_at_few_rows_gives_what_looking_at_all_gives(
    protection: Correcting, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traced graph looks at all rows, since it must not depend on values."""
    copy = protected(protection, tiny_network(), images)
    keep_masks(copy)

    def seen() -> list[Tensor]:
        with error(copy, "2.conv", [1, 4], 1e3), error(copy, "0", [6], float("nan")):
            logits = copy(images[:8])
        return [logits, *protected_evidence(copy).values(), *corrected_masks(copy).values()]

    few = seen()
    monkeypatch.setattr(correcting, "get_proxy_mode", object)
    for one, other in zip(few, seen(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert few[1].any()  # flagged


@every
def test_channels_last_changes_nothing(protection: Correcting, images: Tensor) -> None:
    def made(memory_format: torch.memory_format) -> tuple[nn.Module, Tensor]:
        ordered = images.contiguous(memory_format=memory_format)
        network = tiny_network().to(memory_format=memory_format)  # type: ignore[call-overload]
        return protected(protection, network, ordered), ordered[:8]

    def seen(copy: nn.Module, batch: Tensor) -> list[Tensor]:
        with error(copy, "2.conv", [1], 1e6):
            logits = copy(batch)
        return [logits, *protected_evidence(copy).values()]

    copy, batch = made(torch.channels_last)
    strides: list[tuple[int, ...]] = []
    for module in copy.modules():
        module.register_forward_hook(lambda m, a, output: strides.append(output.stride()))
    clean, orders = copy(batch), list(strides)
    strides.clear()
    found = seen(copy, batch)
    assert strides == orders  # or other kernels would run
    others = [0, *range(2, 8)]
    assert torch.equal(found[0][others], clean[others])
    contiguous = seen(*made(torch.contiguous_format))
    torch.testing.assert_close(found[0], contiguous[0])
    assert [t.tolist() for t in found[1:]] == [t.tolist() for t in contiguous[1:]]


@every
def test_gradients_flow(protection: Correcting, images: Tensor) -> None:
    network = tiny_network()
    copy = protected(protection, network, images)

    def slope(of: nn.Module, rows: list[int]) -> Tensor:
        batch = images[:4].clone().requires_grad_()
        with error(of, "2.conv", rows, float("nan")):
            of(batch).square().sum().backward()
        assert batch.grad is not None
        return batch.grad

    clean, mended = slope(copy, []), slope(copy, [1])
    assert clean.abs().sum() > 0
    assert torch.equal(mended[[0, 2, 3]], clean[[0, 2, 3]])
    if protection is PROTECTIONS["default"]:
        assert torch.equal(clean, slope(network, []))
        assert torch.isfinite(mended).all()
        assert mended[1].abs().sum() > 0
    assert not any(t.requires_grad for t in protected_evidence(copy).values())


@pytest.mark.parametrize("key", ["coverage", "default", "alpha"])
def test_a_protected_network_can_be_traced(key: str, images: Tensor) -> None:
    copy = protected(PROTECTIONS[key], tiny_network(), images)
    with profiling(copy, images[:2]) as ranges, torch.no_grad():
        copy(images)
    method = ODIN(name="odin", std=[0.5] * 3, epsilon=0.02)
    traced = Traced(Pipeline(copy, method, ranges), images[:4])  # compares the graph's values
    assert ("first_forward", "2.conv", 0) in traced.sites


class Other(nn.Module):
    """Shares no layer name with the tiny network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.stem(x))).flatten(1)


FAMILIES = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"]
PLAIN_STREAM = ["swin_t", "convnext_tiny", "vit_b_32"]  # residual, with nothing for Ranger to bound
SLOW = ["densenet121", "googlenet", "efficientnet_b0", "convnext_tiny", "vgg11_bn", "vit_b_32"]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "arch", [*FAMILIES, *(pytest.param(arch, marks=pytest.mark.slow) for arch in SLOW)]
)
def test_works_on_torchvision(arch: str) -> None:
    size = 224 if arch.startswith("vit") else 64
    model = TorchvisionModel(name=arch, arch=arch, weights="random", classes=7, input_size=size)
    network = load_network(model)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    layer = next(n for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    for protection in (PROTECTIONS["default"], PROTECTIONS["always"], PROTECTIONS["clip"]):
        copy = protection.protect(network, protection.fit(network, labelled([images])))
        with torch.no_grad():
            clean = network(images)
            assert torch.equal(copy(images), clean)
            with error(copy, layer, [1], float("inf")):
                mended = copy(images)
        assert protected_evidence(copy)["flagged"].tolist() == [False, True, False, False]
        if arch not in PLAIN_STREAM or protection is not PROTECTIONS["clip"]:
            assert torch.isfinite(mended).all()
        assert torch.equal(mended[[0, 2, 3]], clean[[0, 2, 3]])


@pytest.mark.parametrize(
    "options",
    [
        {"trigger": "sometimes"}, {"threshold": "mean"}, {"granularity": "pixel"},
        {"locate": "last"}, {"checksum": "row"}, {"checksum_weights": "twos"},
        {"activation_check": "mod"}, {"margin": -1.0}, {"k": 0.0}, {"alpha": 1.0}, {"rounds": 0},
        {"checksum_margin": -0.1}, {"checksum": "none", "activation_check": "none"},
    ],
)  # fmt: skip
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ProgipError, match="protection 'g'"):
        gradient(**options)


def test_what_cannot_be_fitted_or_protected_is_refused(images: Tensor) -> None:
    network, head = tiny_network(), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(ProgipError, match="at least 2 training images, got 1"):
        gradient().fit(network, labelled([images[:1]]))
    with pytest.raises(ProgipError, match="its clean outputs are not finite"):
        gradient().fit(network, labelled([images * float("inf")]))
    with pytest.raises(ProgipError, match="no layer before its last"):
        gradient().fit(nn.Sequential(head, nn.ReLU()), labelled([images]))
    with pytest.raises(ProgipError, match=r"no activation that is a module.*with_own_modules"):
        gradient().fit(head, labelled([images]))
    state = gradient().fit(network, labelled([images]))
    with pytest.raises(ProgipError, match="another network"):
        gradient().protect(Other(), state)
    with pytest.raises(ProgipError, match="other options"):
        gradient(checksum="none").protect(network, state)
