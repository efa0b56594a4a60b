"""Energy: the free energy of the logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.ood_methods.logit_score import LogitScore


@dataclass(kw_only=True)
class Energy(LogitScore):
    """Negative free energy (Liu, Wang, Owens, Li, NeurIPS 2020).

    score = -E = T log sum_i exp(z_i / T) of the logits z.

    Attributes:
        temperature: T; the paper recommends 1.

    Source: the paper and wetliu/energy_ood.
    """

    sentence: ClassVar[str] = (
        "The detector runs the network forward once; its score is the negative free energy of the "
        "logits [Energy]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Energy": "Liu, Wang, Owens, Li: Energy-based out-of-distribution detection. NeurIPS 2020. "
        "https://arxiv.org/abs/2010.03759",
    }

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ProgipError(
                f"ood_method '{self.name}': temperature must be positive, got {self.temperature}"
            )

    def logit_score(self, logits: Tensor) -> Tensor:
        return self.temperature * torch.logsumexp(logits / self.temperature, 1)
