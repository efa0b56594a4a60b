"""A public adversarially trained network has the accuracies under attack that are known of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from adversarial_resnet import AdversarialResNet
from torch import Tensor

from progip.attacks.auto_attack import AutoAttack
from progip.attacks.base import PixelNetwork
from progip.attacks.cw_inf import CWInf
from progip.attacks.fgsm import FGSM
from progip.attacks.measuring import robustness
from progip.attacks.pgd import PGD

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]


@pytest.fixture(scope="module")
def network(real_data: Path) -> PixelNetwork:
    path = real_data / "weights/cifar10_resnet4b_adv.pth"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    plain = AdversarialResNet()
    plain.load_state_dict(state)
    return PixelNetwork(plain, MEAN, STD).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images(real_data: Path) -> tuple[Tensor, Tensor]:
    with np.load(real_data / "cifar10/test_lossless_10000.npz") as arrays:
        pixels = torch.from_numpy(arrays["data"]).float().div_(255)
        return pixels, torch.from_numpy(arrays["labels"].astype(np.int64))


@pytest.mark.slow
def test_clean_accuracy(network: PixelNetwork, images: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        right = network(images[0]).argmax(1) == images[1]
    assert right.float().mean().item() == pytest.approx(0.7720, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "known"), [(1, 0.716), (2, 0.651), (8, 0.171)])
def test_accuracy_under_pgd_20(
    network: PixelNetwork, images: tuple[Tensor, Tensor], budget: int, known: float
) -> None:
    attack = PGD(name="pgd", budget=budget, steps=20, step=max(budget / 4, 0.25))
    pixels, labels = images[0][:1000], images[1][:1000]
    found = robustness(network, pixels, labels, attack)
    assert found.robust.estimate == pytest.approx(known, abs=0.003)
    assert found.largest_change == pytest.approx(budget, abs=1e-3)


@pytest.mark.slow
def test_stronger_attacks_leave_less(network: PixelNetwork, images: tuple[Tensor, Tensor]) -> None:
    pixels, labels = images[0][:24], images[1][:24]
    left = [
        robustness(network, pixels, labels, attack).robust.events
        for attack in (
            FGSM(name="fgsm"),
            PGD(name="pgd"),
            CWInf(name="cw_inf"),
            AutoAttack(name="auto_attack"),
        )
    ]
    fgsm, pgd, margin, auto = left
    assert fgsm >= pgd >= auto
    assert margin >= auto
