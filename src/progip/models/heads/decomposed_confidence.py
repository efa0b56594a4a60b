"""A head that splits its logits into a class part and the confidence that the input is known."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.heads.base import Head

SIMILARITIES = ("cosine", "inner", "euclidean")


class Similarity(nn.Linear):
    """h_i(f): how similar a feature f (n, d) is to the weight w_i of each class.

    ``cosine``: of their angle; ``inner``: w_i f + b_i; ``euclidean``: -|f - w_i|^2 / d, the mean
    over elements as in public code. It is a Linear so that faults hit it without being told.
    """

    def __init__(self, features: int, classes: int, kind: str) -> None:
        super().__init__(features, classes, bias=kind == "inner")
        self.kind = kind
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, feature: Tensor) -> Tensor:
        if self.kind == "cosine":
            return F.linear(F.normalize(feature, dim=1), F.normalize(self.weight, dim=1))
        if self.kind == "inner":
            return F.linear(feature, self.weight, self.bias)
        return -(feature.unsqueeze(1) - self.weight).square().mean(2)


class DecomposedConfidence(nn.Module):
    """Logits f_i = h_i / g (Hsu, Shen, Jin, Kira, CVPR 2020), for a network's end.

    ``network.fc = DecomposedConfidence(512, 10)``, then train with cross-entropy as usual.
    g = sigmoid(batch norm(linear(feature))).

    Args:
        features, classes: sizes.
        similarity: h, one of ``SIMILARITIES``.

    Attributes:
        h, g: the modules of the two parts; generalised ODIN looks at what they give.
    """

    def __init__(self, features: int, classes: int, similarity: str = "cosine") -> None:
        super().__init__()
        if similarity not in SIMILARITIES:
            raise ProgipError(
                f"decomposed confidence: similarity={similarity!r} is not one of "
                f"{', '.join(SIMILARITIES)}"
            )
        self.h = Similarity(features, classes, similarity)
        self.g = nn.Sequential(nn.Linear(features, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def forward(self, feature: Tensor) -> Tensor:
        """(n, features) to (n, classes)."""
        numerator: Tensor = self.h(feature)
        return numerator / self.g(feature)


@dataclass(kw_only=True)
class DecomposedConfidenceHead(Head):
    """``DecomposedConfidence`` in the place of the last linear layer, for generalised ODIN.

    Attributes:
        similarity: one of ``SIMILARITIES``.
    """

    name: str = "decomposed_confidence"
    similarity: str = "cosine"

    def module(self, features: int, classes: int) -> nn.Module:
        """(n, features) to (n, classes)."""
        return DecomposedConfidence(features, classes, self.similarity)

    def form(self) -> dict[str, Any]:
        """Its similarity."""
        return {**super().form(), "similarity": self.similarity}
