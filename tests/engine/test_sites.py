"""Which layers a fault can hit, and of how much of a network that is."""

import pytest
import torch
import torchvision
from test_incremental_torchvision import FAST, SIZES, SLOW, build
from torch import nn

from progip.engine.sites import MAC_LAYERS, Survey, survey
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.models.loading import load_network
from progip.models.timm_model import TimmModel
from progip.ood_methods.none import NoMethod

#: layers that are never called: auxiliary classifiers, weights of attention that is a function
NOT_HIT = {
    "googlenet": (6, 1.0),
    "inception_v3": (3, 1.0),
    "swin_t": (24, 0.314),
    "swin_s": (48, 0.343),
    "swin_v2_t": (48, 0.282),
    "vit_b_32": (12, 0.674),
    "vit_b_16": (12, 0.669),
    "maxvit_t": (0, 0.988),
}


def surveyed(network: nn.Module, size: int, channels: int = 3) -> Survey:
    images = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    return survey(network, NoMethod(name="none"), images)


def hit_and_share(network: nn.Module, size: int) -> tuple[set[str], float]:
    found = surveyed(network, size)
    chosen = SingleBitFlip(name="flip").select(found.sites["first_forward"])
    assert not [site.layer for site in chosen if site.doubt]
    coverage = found.coverage("first_forward", chosen)
    layers = {name for name, module in network.named_modules() if isinstance(module, MAC_LAYERS)}
    hit = {site.layer for site in chosen} & layers
    assert {layer["layer"] for layer in coverage["not_hit"]} == layers - hit
    return layers - hit, coverage["macs_hit"] / coverage["macs"]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_torchvision(name: str) -> None:
    size = SIZES.get(name, 64)
    not_hit, share = hit_and_share(build(name, size), size)
    layers, macs = NOT_HIT.get(name, (0, 1.0))
    assert len(not_hit) == layers
    assert share == pytest.approx(macs, abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "layers", "size"),
    [
        ("resnetv2_50x1_bit", 54, 64),
        ("tf_mobilenetv3_small_minimal_100", 36, 64),
        ("vit_tiny_patch16_224", 50, 224),
        ("resnetv2_50", 54, 64),
    ],
)
def test_timm(arch: str, layers: int, size: int) -> None:
    pytest.importorskip("timm", reason="an extra that is not installed")
    network = load_network(
        TimmModel(name=arch, arch=arch, weights="random"), image_shape=(3, size, size)
    )
    assert sum(isinstance(module, MAC_LAYERS) for module in network.modules()) == layers
    assert hit_and_share(network, size) == (set(), pytest.approx(1.0, abs=1e-9))


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("alexnet", "AlexNet_Weights.IMAGENET1K_V1"),
        ("resnet18", "ResNet18_Weights.IMAGENET1K_V1"),
        ("mobilenet_v3_small", "MobileNet_V3_Small_Weights.IMAGENET1K_V1"),
        ("shufflenet_v2_x0_5", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"),
        ("vit_b_32", "ViT_B_32_Weights.IMAGENET1K_V1"),
    ],
)
def test_multiply_accumulates_are_those_that_torchvision_publishes(name: str, weights: str) -> None:
    published = torchvision.models.get_weight(weights).meta["_ops"]  # 10^9 multiply-accumulates
    network = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    found = surveyed(network, 224)
    assert found.macs / 1e9 == pytest.approx(published, rel=0.02, abs=6e-4)


def test_layers_are_counted_in_every_call_and_by_hand() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.up = nn.ConvTranspose2d(4, 2, 2, 2)
            self.fc = nn.Linear(2 * 16 * 16, 5)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.up(self.conv(self.conv(x))).flatten(1)) @ torch.ones(5, 7)

    found = surveyed(Twice().eval().requires_grad_(False), 8, channels=4)
    by_layer: dict[str, list[int]] = {}
    for site in found.sites["first_forward"]:
        by_layer.setdefault(site.layer, []).append(site.macs)
    conv, up, fc = 4 * 64 * 2 * 9, 4 * 64 * 2 * 4, 512 * 5
    assert by_layer == {"conv": [conv, conv], "up": [up], "fc": [fc]}
    assert found.macs == 2 * conv + up + fc + 5 * 7  # the last product is a function
    (unused,) = found.left_out["first_forward"]
    assert (unused.layer, unused.macs) == ("unused", 0)
    assert unused.reason == "is never called as a module in this pass"
