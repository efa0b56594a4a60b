"""What a guarded detector refuses, and what it says then."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from guarded import Everything, made, method_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.deploy.calibration import guarded_detector
from progip.errors import ProgipError
from progip.ood_methods.base import InputPerturbation
from progip.ood_methods.mahalanobis import Mahalanobis
from progip.ood_methods.odin import ODIN
from progip.protections.none import NoProtection
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger


@dataclass(kw_only=True)
class Astray(NoProtection):
    watches = ("temperature",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": tiny_network().train()}, "eval"),
        ({"network": tiny_network().requires_grad_(True)}, "requires_grad_"),
        ({"network": nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval().requires_grad_(False),
          "protection": Ranger(name="r")}, "no activation that is a module"),
        ({"range_checks": "loose"}, "range_checks='loose' is not one of fused, per_layer"),
        ({"train": []}, "no batch of training images"),
        ({"id_images": torch.zeros(3, 8, 8)}, r"id_images: .* not \(3, 8, 8\)"),
        ({"ood_images": torch.zeros(0, 3, 8, 8)}, "ood_images"),
        ({"id_images": torch.full((4, 3, 8, 8), torch.nan)}, "not finite"),
        ({"range_checks": "per_layer", "protection": Everything(name="all")}, "'range_excess'"),
        ({"protection": Astray(name="astray")}, "'astray' looks at temperature, which ood"),
    ],
)  # fmt: skip
def test_wrong_parts(change: dict[str, Any], message: str, images: Tensor) -> None:
    parts: dict[str, Any] = {
        "network": tiny_network(),
        "method": method_of("odin"),
        "protection": ProGIP(name="progip"),
        "train": [(images, torch.arange(40) % 4)],
        "id_images": images,
    }
    with pytest.raises(ProgipError, match=message):
        guarded_detector(**{**parts, **change})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(3, 8, 8), r"images of shape .* not \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"B >= 1, .* not \(0, 3, 8, 8\)"),
        (np.zeros((1, 3, 8, 8), np.float32), r"not ndarray \(torch\.from_numpy makes one\)"),
        ([[0.0]], "not list"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"float32 tensor, not torch\.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), r"float32 tensor, not torch\.float64"),
        (torch.zeros(1, 4, 8, 8), r"\(1, 4, 8, 8\) on cpu do not go through: .*channels"),
    ],
)
def test_wrong_images(network: nn.Module, images: Tensor, given: Any, message: str) -> None:
    detector = made(network, "odin", ProGIP(name="progip"), "fused", images)
    with pytest.raises(ProgipError, match=message):
        detector(given)
    assert len(detector(images).alarm) == len(images)


@pytest.mark.parametrize("kind", [ODIN, Mahalanobis])
def test_a_std_of_another_length_is_named(
    kind: type[InputPerturbation], network: nn.Module, images: Tensor
) -> None:
    parts = {"train": [(images, torch.arange(40) % 4)], "id_images": images}
    for std in ([0.5] * 2, [0.5] * 4):
        method = kind(name="m", std=std)
        with pytest.raises(ProgipError, match=f"'m': std has {len(std)} values, .* 3 channels"):
            guarded_detector(network, method, ProGIP(name="progip"), **parts)


def test_a_random_network_is_not_deployed(images: Tensor) -> None:
    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, training=True).flatten(1)

    parts: dict[str, Any] = {"train": [(images, torch.arange(40))], "id_images": images}
    network = nn.Sequential(Random(), nn.Linear(192, 4)).eval().requires_grad_(False)
    with pytest.raises(ProgipError, match=r"other outputs when .* layer '0' \(Random\)"):
        guarded_detector(network, method_of("odin"), ProGIP(name="progip"), **parts)
