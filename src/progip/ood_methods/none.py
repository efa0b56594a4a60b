"""No detector: one forward pass that gives the class, and nothing that judges the input."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass

SCORE = 1.0  # of every image, above the threshold of the campaign, 0: all are in-distribution


@dataclass(kw_only=True)
class NoMethod(OODMethod):
    """The network alone, for campaigns about accuracy and silent data corruption (SDC).

    Every input is taken as in-distribution: its score is 1, its gradient 0, whatever happens. A
    failure is a changed class.
    """

    sentence: ClassVar[str] = (
        "The network runs forward once and gives a class; nothing judges its input."
    )

    gradient_vanishes: ClassVar[bool] = False
    passes: ClassVar[tuple[str, ...]] = ("first_forward",)
    verdicts: ClassVar[bool] = False

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        with torch.no_grad():
            enter("first_forward")
            logits = network(images)
        nothing = logits.new_zeros((len(images), 1))
        score = logits.new_full((len(images),), SCORE, dtype=torch.float64)
        return Detection(logits, nothing, images, score)
