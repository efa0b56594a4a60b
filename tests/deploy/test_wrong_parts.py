"""What a guarded detector refuses, and what it says then."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from guarded import Everything, made, method_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.deploy.calibration import guarded_detector
from progip.errors import ProgipError
from progip.protections.none import NoProtection
from progip.protections.progip import ProGIP
from progip.protections.range_restriction import RangeRestriction
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
          "protection": Ranger(name="r")}, "no activation modules"),
        ({"range_checks": "loose"}, "range_checks='loose' is not one of fused, per_layer"),
        ({"train": []}, "no batch of training images"),
        ({"id_images": torch.zeros(3, 8, 8)}, r"id_images: .* not \(3, 8, 8\)"),
        ({"ood_images": torch.zeros(0, 3, 8, 8)}, "ood_images"),
        ({"id_images": torch.full((4, 3, 8, 8), torch.nan)}, "not finite"),
        ({"range_checks": "per_layer", "protection": Everything(name="all")}, "'range_excess'"),
        ({"protection": RangeRestriction(name="clip")}, "'clip' corrects"),
        ({"protection": Astray(name="astray")}, "'astray' watches temperature; there are grad_max"),
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


def test_wrong_images(network: nn.Module, images: Tensor) -> None:
    detector = made(network, "odin", ProGIP(name="progip"), "fused", images)
    with pytest.raises(ProgipError, match=r"give images of shape .* not \(3, 8, 8\)"):
        detector(images[0])
