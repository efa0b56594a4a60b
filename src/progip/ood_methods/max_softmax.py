"""Maximum softmax probability: the baseline of OOD detection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.ood_methods.logit_score import LogitScore


@dataclass(kw_only=True)
class MaxSoftmax(LogitScore):
    """Maximum softmax probability (MSP; Hendrycks, Gimpel, ICLR 2017).

    score = max_i softmax(z)_i of the logits z. Faults that enlarge a logit raise it to 1.

    Source: the paper.
    """

    sentence: ClassVar[str] = (
        "The detector runs the network forward once; its score is the largest softmax "
        "probability [MSP]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "MSP": "Hendrycks, Gimpel: A baseline for detecting misclassified and out-of-distribution "
        "examples in neural networks. ICLR 2017. https://arxiv.org/abs/1610.02136",
    }

    def logit_score(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, 1).amax(1)
