"""A head of two layers, the second of which starts as text embeddings of the classes."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.heads.base import Head
from progip.models.heads.embeddings import file_rows, random_rows

MODES = ("split", "merged_normed", "merged_argmax")
RANDOM, LINEAR = "random", "linear"
#: CLIP's temperature, which the multiplier starts as the inverse of
TEMPERATURE = 0.07


class UnitLength(nn.Module):
    """z / |z| of each row. |z| is computed in float32: from 1.8e19 on squares are infinite, u 0."""

    def forward(self, z: Tensor) -> Tensor:
        return z / z.norm(dim=1, keepdim=True)


class TextGuidedHead(nn.Module):
    """exp(s) W u of u = z / |z| and z = A f + b (Wasim et al., NeurIPS 2023).

    Attributes:
        project: A and b, from features (B) to the width of the embeddings (E).
        unit: gives u.
        classify: W (C, E), without bias; a fault in what it gives is multiplied by exp(s).
        log_scale: s, learnt; exp(s) starts as 1 / 0.07, as in CLIP.
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.unit = UnitLength()
        self.classify = nn.Linear(width, classes, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def forward(self, features: Tensor) -> Tensor:
        """(n, B) to (n, C)."""
        logits: Tensor = self.classify(self.unit(self.project(features)))
        return logits * self.log_scale.exp()

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """W A f + W b: one layer, whose largest output is the head's but whose logits are not.

        Each image's logits lack the factor exp(s) / |A f + b| > 0. Computed in float64.
        """
        a, b, w = self._parts()
        return _linear(w @ a, w @ b, self.project.weight)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self.project.weight, self.project.bias, self.classify.weight)
        a, b, w = (part.detach().double() for part in parts)
        return a, b, w


class MergedNormed(nn.Module):
    """The same logits from layers of features alone: exp(s) (M f + c) / |A f + b|.

    M = W A, c = W b, and |A f + b|^2 = f (G f + 2 q) + r with G = A' A (B x B), q = A' b, r = b' b.

    Attributes:
        gram: G and 2 q; a layer like others, so that its multiplications can be hit, too.
        merged: M and c.
    """

    @torch.no_grad()
    def __init__(self, head: TextGuidedHead) -> None:
        super().__init__()
        a, b, _ = head._parts()
        self.gram = _linear(a.T @ a, 2 * a.T @ b, head.project.weight)
        self.merged = head.merged()
        self.register_buffer("rest", (b @ b).to(head.project.weight))
        self.register_buffer("scale", head.log_scale.detach().exp())

    def forward(self, features: Tensor) -> Tensor:
        """(n, B) to (n, C)."""
        square = (features * self.gram(features)).sum(1, keepdim=True) + self.rest
        logits: Tensor = self.merged(features)
        return logits * (self.scale / square.sqrt())


def _linear(weight: Tensor, bias: Tensor, like: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).to(like)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


@dataclass(kw_only=True)
class TextGuided(Head):
    """``TextGuidedHead`` in the place of the last linear layer.

    Wasim, Soboka, Mahmoud, Khan, Brooks, Wei: Hardware resilience properties of text-guided image
    classifiers. NeurIPS 2023; github.com/TalalWasim/TextGuidedResilience.

    Attributes:
        embeddings: what W starts as: a file (``.pth``, ``.npy``, ``.safetensors``) with a row for
            each class in the order of the labels, brought to unit length; ``random``: unit rows of
            random direction with a given mean cosine; ``linear``: the initial weights of a linear
            layer, the ablation of the source. Read where a training starts, not by campaigns.
        width: E, of the embeddings.
        rows: the file's row of each class; -1 for a class it lacks, which gets a random one.
        mean_cosine: of random rows with one another.
        freeze: W stays as it starts; all else is trained.
        mode: how campaigns compute it. ``split``: two layers, as trained; ``merged_normed``: the
            same logits from ``MergedNormed``; ``merged_argmax``: one linear layer with the same
            class, whose logits are others.

    Raises:
        ProgipError: for a mode that does not exist, sizes that are none, or options nothing reads.
    """

    name: str = "text_guided"
    embeddings: str = RANDOM
    width: int = 512
    rows: list[int] | None = None
    mean_cosine: float = 0.6
    freeze: bool = False
    mode: str = "split"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ProgipError(f"model.head.mode must be one of {', '.join(MODES)}: '{self.mode}'")
        if self.width < 2:
            raise ProgipError(f"model.head.width must be at least 2, not {self.width}")
        if not 0 <= self.mean_cosine < 1:
            raise ProgipError(f"model.head.mean_cosine must be in [0, 1), not {self.mean_cosine}")
        if self.rows is not None and self.embeddings in (RANDOM, LINEAR):
            raise ProgipError(
                f"model.head.rows chooses among the rows of a file, and model.head.embeddings is "
                f"'{self.embeddings}'; leave it out"
            )

    def module(self, features: int, classes: int) -> nn.Module:
        """(n, features) to (n, classes), in two layers; W is not read from ``embeddings``."""
        head = TextGuidedHead(features, self.width, classes)
        head.classify.weight.requires_grad_(not self.freeze)
        return head

    def start(self, head: nn.Module) -> None:
        """Put the embeddings into W."""
        assert isinstance(head, TextGuidedHead)
        weight = head.classify.weight
        if self.embeddings == LINEAR:
            return
        rows = random_rows(len(weight), self.width, self.mean_cosine)
        if self.embeddings != RANDOM:
            path = Path(self.embeddings).expanduser()
            known = file_rows(path, len(weight), self.width, self.rows)
            rows = torch.where(known.isnan(), rows, known)
        with torch.no_grad():
            weight.copy_(rows)

    def finished(self, head: nn.Module) -> nn.Module:
        """Two layers, or those of ``mode``."""
        assert isinstance(head, TextGuidedHead)
        if self.mode == "merged_normed":
            return MergedNormed(head)
        return head.merged() if self.mode == "merged_argmax" else head

    def form(self) -> dict[str, Any]:
        """Its width and mode."""
        return {**super().form(), "width": self.width, "mode": self.mode}
