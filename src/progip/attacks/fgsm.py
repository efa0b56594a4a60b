"""The fast gradient sign method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from progip.attacks.base import Attack, torchattacks


@dataclass(kw_only=True)
class FGSM(Attack):
    """One step of the whole budget along the sign of the cross-entropy's gradient.

    Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples, ICLR 2015, section
    4; as torchattacks has it.
    """

    sentence: ClassVar[str] = "one step along the sign of the gradient"

    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = torchattacks().FGSM(network, eps=self.epsilon)(images, labels)
        return found
