"""Networks that end in a decomposed confidence, for generalised ODIN."""

from dataclasses import dataclass

from tiny_networks import tiny_network
from torch import nn

from progip.models.digits import DigitsResNet
from progip.models.heads.decomposed_confidence import DecomposedConfidence


@dataclass(kw_only=True)
class DecomposedDigits(DigitsResNet):
    """The demo network with that head, with random weights."""

    def network(self) -> nn.Module:
        made = super().network()
        made.linear = DecomposedConfidence(64, self.classes)
        return made


#: overrides of a composition that choose it
DECOMPOSED = ["model._target_=decomposed_networks.DecomposedDigits", "model.weights=random"]


def decomposed_network(similarity: str = "cosine") -> nn.Module:
    """``tiny_network`` of 4 classes with that head."""
    network = tiny_network()
    network[-1] = DecomposedConfidence(4, 4, similarity)
    return network.eval().requires_grad_(False)
