"""VGG-16 with batch normalisation for 32x32 input."""

from dataclasses import dataclass

import torch
from torch import nn

from progip.models.base import Model

#: output channels of the 3x3 convolutions of each stage; every stage ends in a 2x2 max-pool
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16BNModule(nn.Module):
    """(n, channels, 32, 32) to logits (n, classes).

    Parameter names are those of github.com/chenyaofo/pytorch-cifar-models (and of torchvision):
    features.{i}, classifier.{0,3,6}; its classifier has 512 units a layer.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in STAGES:
            for planes in stage:
                layers += [
                    nn.Conv2d(channels, planes, 3, padding=1),
                    nn.BatchNorm2d(planes),
                    nn.ReLU(),
                ]
                channels = planes
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(512, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # made with a bias above
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.flatten(self.features(x)))


@dataclass(kw_only=True)
class VGG16BN(Model):
    """VGG-16 (configuration D) with batch normalisation for 32x32 input.

    Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, ICLR
    2015; the small classifier as in github.com/chenyaofo/pytorch-cifar-models.
    """

    def network(self) -> nn.Module:
        """Input (n, channels, 32, 32)."""
        return VGG16BNModule(self.classes, self.channels)
