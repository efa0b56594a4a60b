"""PRO: the lowest score on the way of a few gradient steps that lower it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.base import (
    Detection,
    EnterPass,
    GradientStep,
    check_choice,
    finite_or_nan,
    no_pass,
)
from progip.passes import passes_of


@dataclass(kw_only=True)
class PRO(GradientStep):
    """Perturbation-rectified OOD detection (Chen, Yeh, Mou, Gu, CVPR 2025).

    x_0 = x, x_k = x_{k-1} - epsilon sign(grad S(x_{k-1})) for k = 1 to ``steps``. The score is
    min_k S(x_k), k = 0 among them (``keep: minimum``), or S(x_steps) (``last``), of S = max
    softmax(z / T) (``msp``) or S = sum_i p_i log p_i, p = softmax(z / T) (``entropy``, its
    negative). The class comes from x_0. Steps are not projected into a ball, as in public code.
    The score is NaN where a logit of the first or of the last forward pass is not finite.

    Faults can hit the forward pass and the gradient of every step: ``first_forward`` and
    ``backward`` of x_0, ``forward_2`` and ``backward_2`` of x_1, and so on, and ``second_forward``,
    that of x_steps. ProGIP watches the first gradient, ``StepProGIP`` all of them. Ranges are
    checked in every forward pass.

    Attributes:
        steps: gradient steps.
        confidence: ``msp`` or ``entropy``.
        keep: ``minimum`` or ``last``.
        temperature: T.

    Source: the paper; wenxichen2746/Perturbation-Rectified-OOD-Detection, PROv2_MSP and PROv2_ENT
    (``minimum``), PRO_MSP and PRO_ENT (``last``).
    """

    sentence: ClassVar[str] = (
        "The detector PRO runs a network forward, which gives the class, and moves the image along "
        "gradients that lower its confidence; the score that tells in-distribution (ID) from "
        "out-of-distribution (OOD) inputs is the lowest confidence on the way, or the last [PRO]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "PRO": "Chen, Yeh, Mou, Gu: Leveraging perturbation robustness to enhance "
        "out-of-distribution detection. CVPR 2025. https://arxiv.org/abs/2503.18784",
    }

    epsilon: float = 0.003
    sign: str = "sign"
    rescale: str = "none"
    steps: int = 1
    confidence: str = "msp"
    keep: str = "minimum"
    temperature: float = 1.0

    @property
    def passes(self) -> tuple[str, ...]:  # type: ignore[override]  # how many is an option
        return passes_of(self.steps)

    gradient_vanishes: ClassVar[bool] = True  # a huge logit saturates the softmax

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "confidence", self.confidence, ("msp", "entropy"))
        check_choice(self.name, "keep", self.keep, ("minimum", "last"))
        if self.steps < 1 or self.temperature <= 0:
            raise ProgipError(
                f"ood_method '{self.name}': steps must be at least 1 and temperature positive, got "
                f"steps={self.steps}, temperature={self.temperature}"
            )

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        moved, logits = images.detach(), None
        gradients: list[Tensor] = []
        scores: list[Tensor] = []
        for step in range(self.steps):
            if step:
                moved = self.perturb(moved, gradients[-1])
            forward, backward = self.passes[2 * step : 2 * step + 2]
            enter(forward)
            found, gradient, score = self._step(network, moved, backward, enter)
            logits = found if logits is None else logits
            gradients.append(gradient)
            scores.append(score)
        assert logits is not None  # there is one step at least
        moved = self.perturb(moved, gradients[-1])
        with torch.no_grad():
            enter("second_forward")
            final = network(moved)
        scores.append(finite_or_nan(self.confidence_of(final.double()), final))
        last = scores[-1] if self.keep == "last" else torch.stack(scores).amin(0)  # NaN stays
        score = finite_or_nan(last, logits)
        return Detection(logits, gradients[0], moved, score, tuple(gradients[1:]))

    def confidence_of(self, logits: Tensor) -> Tensor:
        """S (B,) of logits (B, classes)."""
        logits = logits / self.temperature
        if self.confidence == "msp":
            return torch.softmax(logits, 1).amax(1)
        return (torch.softmax(logits, 1) * torch.log_softmax(logits, 1)).sum(1)

    def _step(
        self, network: nn.Module, images: Tensor, backward: str, enter: EnterPass
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, gradient of the confidence, and the confidence in float64, at some images."""
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = network(images)
            confidence = self.confidence_of(logits)
            enter(backward)
            gradient = self.gradient(confidence, images)
        logits = logits.detach()
        return logits, gradient, self.confidence_of(logits.double())
