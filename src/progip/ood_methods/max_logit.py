"""Maximum logit: the score that softmax cannot saturate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from progip.ood_methods.logit_score import LogitScore


@dataclass(kw_only=True)
class MaxLogit(LogitScore):
    """Maximum logit score (MLS; Hendrycks et al., ICML 2022).

    score = max_i z_i of the logits z.

    Source: the paper, whose anomaly score is its negative.
    """

    sentence: ClassVar[str] = (
        "The detector runs the network forward once; its score is the largest logit [MaxLogit]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "MaxLogit": "Hendrycks, Basart, Mazeika, Zou, Kwon, Mostajabi, Steinhardt, Song: Scaling "
        "out-of-distribution detection for real-world settings. ICML 2022. "
        "https://arxiv.org/abs/1911.11132",
    }

    def logit_score(self, logits: Tensor) -> Tensor:
        return logits.amax(1)
