"""A fresh linear layer: the equal of another head where both are trained anew."""

from dataclasses import dataclass

from torch import nn

from progip.models.heads.base import Head


@dataclass(kw_only=True)
class LinearHead(Head):
    """A linear layer of its own, with the initial weights of torch.

    A network without a head keeps its own last layer, and what that has learnt. This one is for
    comparisons: it starts where other heads start.
    """

    name: str = "linear"

    def module(self, features: int, classes: int) -> nn.Module:
        """(n, features) to (n, classes)."""
        return nn.Linear(features, classes)
