"""ODIN: temperature-scaled softmax on a perturbed input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.base import InputPerturbation


@dataclass(kw_only=True)
class ODIN(InputPerturbation):
    """Out-of-DIstribution detector for Neural networks (Liang, Li, Srikant, ICLR 2018).

    The loss of an image is the cross-entropy of logits / T with the predicted class, the score is
    max softmax(logits / T) of the perturbed image. Losses are summed, not averaged, over a batch,
    so a gradient does not depend on what else is in the batch.

    Attributes:
        temperature: T; 1000 in every published setting.

    Source: the paper, eq. 1-3, and facebookresearch/odin.
    """

    sentence: ClassVar[str] = InputPerturbation.sentence + (
        " The score of ODIN is the largest softmax probability at a high temperature [ODIN]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "ODIN": "Liang, Li, Srikant: Enhancing the reliability of out-of-distribution image "
        "detection in neural networks. ICLR 2018. https://arxiv.org/abs/1706.02690",
    }

    temperature: float = 1000.0

    gradient_vanishes: ClassVar[bool] = True  # a huge logit saturates the softmax

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ProgipError(
                f"ood_method '{self.name}': temperature must be positive, got {self.temperature}"
            )

    def first_forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(images)
        predicted = logits.argmax(1, keepdim=True)
        log_softmax = torch.log_softmax(logits / self.temperature, 1)
        return logits, -log_softmax.gather(1, predicted).squeeze(1)

    def second_forward(self, network: nn.Module, images: Tensor) -> Tensor:
        return torch.softmax(network(images).double() / self.temperature, 1).amax(1)
