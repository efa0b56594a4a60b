"""A network of your own: change it, train it, and name its weights in conf/model/mine.yaml."""

from dataclasses import dataclass

from torch import nn

from progip.models.base import Model


@dataclass(kw_only=True)
class MyNetwork(Model):
    """Two convolutions and a classifier.

    Attributes:
        width: channels; model.width=32 on the command line.
    """

    width: int = 16

    def network(self) -> nn.Module:
        """Images (B, channels, height, width) in, logits (B, classes) out."""
        return nn.Sequential(
            nn.Conv2d(self.channels, self.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.width, self.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * self.width, self.classes),
        )
