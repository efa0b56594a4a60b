"""Guarded detectors of a tiny network, for tests."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progip.deploy.calibration import guarded_detector
from progip.deploy.detector import GuardedDetector
from progip.ood_methods.base import OODMethod
from progip.ood_methods.mahalanobis import Mahalanobis
from progip.ood_methods.odin import ODIN
from progip.protections.base import Evidence, Judgement, Protection, first_alarm
from progip.protections.none import NoProtection
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger


@dataclass(kw_only=True)
class Everything(Protection):
    """Looks at every column there is, as a protection that does not say what it watches."""

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {"most": float(clean["grad_max"].max())}

    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        return first_alarm(
            [
                ("logits", evidence["nonfinite_logits"]),
                ("gradient", evidence["nonfinite_gradient"]),
                ("score", evidence["nonfinite_score"]),
                ("most", ~(evidence["grad_max"] <= thresholds["most"])),
                ("first", ~(evidence["range_excess_first"] <= 0.25)),
                ("second", ~(evidence["range_excess_second"] <= 0.5)),
            ]
        )


PROTECTIONS = {
    "none": (NoProtection(name="none"), "fused"),
    "progip": (ProGIP(name="progip"), "fused"),
    "progip_both": (ProGIP(name="both", score_side="both", gradient_side="both"), "fused"),
    "ranger, fused": (Ranger(name="ranger"), "fused"),
    "ranger, per layer": (Ranger(name="ranger"), "per_layer"),
    "wide ranger, fused": (Ranger(name="wide", margin=0.3), "fused"),
    "wide ranger, per layer": (Ranger(name="wide", margin=0.3), "per_layer"),
    "everything": (Everything(name="everything"), "fused"),
}


class Reused(nn.Module):
    """One ReLU called twice, with other ranges each time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.flatten, self.head = nn.Flatten(), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(3 * self.relu(self.first(x))))
        logits: Tensor = self.head(self.flatten(self.pool(x)))
        return logits


def reused() -> nn.Module:
    torch.manual_seed(3)
    return Reused().eval().requires_grad_(False)


def method_of(kind: str) -> OODMethod:
    if kind == "odin":
        return ODIN(name="odin", std=[0.5] * 3, epsilon=0.02)
    return Mahalanobis(name="mahalanobis", std=[0.5] * 3, epsilon=0.02)


def made(
    network: nn.Module, kind: str, protection: Protection, form: str, images: Tensor, **more: Any
) -> GuardedDetector:
    labels = torch.arange(len(images)) % 4
    return guarded_detector(
        network,
        method_of(kind),
        protection,
        train=[(images[:20], labels[:20]), (images[20:], labels[20:])],
        id_images=images[:24] + 0.1,
        ood_images=images[24:] * 1.5,
        range_checks=form,
        **more,
    )
