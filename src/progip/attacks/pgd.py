"""Projected gradient descent."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from progip.attacks.base import LEVELS, Iterated, torchattacks


@dataclass(kw_only=True)
class PGD(Iterated):
    """Signed gradient steps on the cross-entropy, projected onto the budget.

    Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial
    attacks, ICLR 2018; as torchattacks has it.
    """

    sentence: ClassVar[str] = "signed gradient steps on the cross-entropy, projected"

    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        attack = torchattacks().PGD(
            network,
            eps=self.epsilon,
            alpha=self.step / LEVELS,
            steps=self.steps,
            random_start=self.random_start,
        )
        found: Tensor = attack(images, labels)
        return found
