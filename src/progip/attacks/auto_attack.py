"""AutoAttack: four attacks without parameters, one after the other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.attacks.base import Attack, torchattacks


@dataclass(kw_only=True)
class AutoAttack(Attack):
    """APGD on the cross-entropy, targeted APGD, targeted FAB and Square, as torchattacks has them.

    Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, ICML 2020, the ``standard`` version. Each meets only the images that
    those before it left right. Hundreds of passes an image.
    """

    sentence: ClassVar[str] = "APGD-CE, APGD-T, FAB-T and Square, one after the other"

    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            classes = network(images[:1]).shape[1]
        attack = torchattacks().AutoAttack(
            network, eps=self.epsilon, n_classes=classes, seed=int(torch.randint(2**31, ()))
        )
        found: Tensor = attack(images, labels)
        return found
