"""Generalised ODIN: the score of a network that was trained with a decomposed confidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.heads.decomposed_confidence import DecomposedConfidence
from progip.ood_methods.base import InputPerturbation, check_choice, finite_or_nan


@dataclass(kw_only=True)
class GeneralisedODIN(InputPerturbation):
    """Generalised ODIN (Hsu, Shen, Jin, Kira, CVPR 2020) on logits f_i = h_i / g.

    score S = max_i h_i(x~), or g(x~), of the perturbed image x~ = x + epsilon sign(grad_x S): the
    loss of an image is -S, so the step raises the score. The class is argmax_i f_i of the first
    forward pass. The score is NaN where an h_i (or g) is not finite.

    The network needs the head ``DecomposedConfidence`` (``model.head=decomposed_confidence``). The
    paper tries epsilon of 0.0025, 0.005, 0.01, 0.02, 0.04 and 0.08 and keeps the one with the
    largest mean score of ID validation images; here it is given.

    Attributes:
        confidence: ``h`` or ``g``.

    Source: the paper; ``godin`` of OpenOOD, whose score is softmax(h) in place of h.
    """

    sentence: ClassVar[str] = InputPerturbation.sentence + (
        " Generalised ODIN takes loss and score from one part of a decomposed confidence "
        "[Generalised ODIN]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Generalised ODIN": "Hsu, Shen, Jin, Kira: Generalized ODIN: Detecting out-of-distribution "
        "image without learning from out-of-distribution data. CVPR 2020. "
        "https://arxiv.org/abs/2002.11297",
    }

    epsilon: float = 0.0025
    confidence: str = "h"

    gradient_vanishes: ClassVar[bool] = True  # a huge feature turns no more, and saturates g

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "confidence", self.confidence, ("h", "g"))

    def first_forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, part = self._forward(network, images)
        return logits, -part.amax(1)

    def second_forward(self, network: nn.Module, images: Tensor) -> Tensor:
        part = self._forward(network, images)[1].double()
        return finite_or_nan(part.amax(1), part)

    def _forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the part of the head that gives the score: h (n, classes) or g (n, 1)."""
        heads = [m for m in network.modules() if isinstance(m, DecomposedConfidence)]
        if len(heads) != 1:
            raise ProgipError(
                f"ood_method '{self.name}' needs a network with one head "
                "DecomposedConfidence (model.head=decomposed_confidence), and this "
                f"{type(network).__name__} has {len(heads) or 'none'}; give it one and train it, "
                "or choose another ood_method"
            )
        given: list[Tensor] = []
        part = heads[0].h if self.confidence == "h" else heads[0].g
        # after all other hooks: a fault in what the part gives is in the score, too
        handle = part.register_forward_hook(lambda _, __, output: given.append(output))
        try:
            logits = network(images)
        finally:
            handle.remove()
        return logits, given[0]
