"""PGD on the margin of Carlini and Wagner."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.attacks.ascent import sign_ascent
from progip.attacks.base import LEVELS, Iterated


@dataclass(kw_only=True)
class CWInf(Iterated):
    """Signed gradient steps on the margin: the largest logit of another class less the label's.

    What works on robust networks call CW_inf: the loss f6 of Carlini and Wagner (Towards evaluating
    the robustness of neural networks, S&P 2017) under the steps of PGD. No library that we depend
    on has it; the steps are ours: on the cross-entropy those of torchattacks to 2e-7.
    """

    sentence: ClassVar[str] = "PGD on the margin between the label's and the next largest logit"
    of_library: ClassVar[bool] = False

    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        start = images
        if self.random_start:
            start = images + torch.empty_like(images).uniform_(-self.epsilon, self.epsilon)
        return sign_ascent(
            lambda found: margin(network(found), labels).sum(),
            images,
            start,
            epsilon=self.epsilon,
            step=self.step / LEVELS,
            steps=self.steps,
        )


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,): the largest logit but the label's, less the label's; above 0 where it is wrong."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own
