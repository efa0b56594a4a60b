"""What detectors have in common that judge an input by its logits alone."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.ood_methods.base import Detection, EnterPass, OODMethod, finite_or_nan, no_pass


@dataclass(kw_only=True)
class LogitScore(OODMethod):
    """A detector of one forward pass: no gradient, no perturbed input.

    So faults hit the first forward pass alone, and a protection of gradients (ProGIP) has nothing
    to watch. The score is NaN, and the verdict not in-distribution, where a logit is NaN or
    infinite.
    """

    gradient_vanishes: ClassVar[bool] = False
    passes: ClassVar[tuple[str, ...]] = ("first_forward",)

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        with torch.no_grad():
            enter("first_forward")
            logits = network(images)
            score = finite_or_nan(self.logit_score(logits.double()), logits)
        nothing = logits.new_zeros((len(images), 1))
        return Detection(logits, nothing, images, score)

    @abstractmethod
    def logit_score(self, logits: Tensor) -> Tensor:
        """The score (B,) of finite logits (B, classes), float64; higher means in-distribution."""
