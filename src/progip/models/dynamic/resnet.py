"""The bottleneck ResNet whose depth, widths and hidden channels can be chosen."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from progip.models.dynamic.space import Architecture, Space


class Bottleneck(nn.Module):
    """relu(bn(1x1(relu(bn(3x3(relu(bn(1x1(x)))))))) + shortcut(x)); the 3x3 has the stride.

    The shortcut is x, or a 1x1 convolution with batch normalisation in a stage's first block.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if first
            else nn.Identity()
        )
        self.relu3 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        return self.relu3(self.bn3(self.conv3(out)) + self.downsample(x))

    def hidden(self) -> list[tuple[list[nn.Module], nn.Module]]:
        """Layers whose output channels are hidden ones, and the one that takes these in."""
        return [([self.conv1, self.bn1], self.conv2), ([self.conv2, self.bn2], self.conv3)]


@dataclass(kw_only=True)
class ResNetSpace(Space):
    """ResNets of bottleneck blocks with elastic depth, width and expand ratio.

    The space of ProARD (Mousavi, Mousavi, Daneshtalab, IJCNN 2025), which follows Once-for-All
    (Cai et al., ICLR 2020). The stem is one 3x3 convolution of stride 1, the shortcut a strided
    1x1 convolution; their code has three convolutions and a pooled shortcut.

    Attributes:
        width: channels of stem and stages, as a part of ``stem`` and ``widths``.
    """

    family: ClassVar[str] = "resnet"

    width: list[float] = field(default_factory=lambda: [0.65, 0.8, 1.0])

    @property
    def choices(self) -> dict[str, list[float]]:
        return {"depth": list(self.depth), "expand": list(self.expand), "width": list(self.width)}

    def network(self, architecture: Architecture, classes: int, channels: int) -> nn.Module:
        parts = [
            self.divisible(full * part)
            for full, part in zip([self.stem, *self.widths], architecture["width"], strict=True)
        ]
        network = nn.Sequential()
        network.conv1 = nn.Conv2d(channels, parts[0], 3, padding=1, bias=False)
        network.bn1 = nn.BatchNorm2d(parts[0])
        network.relu = nn.ReLU()
        for stage, places in enumerate(self.blocks(architecture)):
            inputs, outputs = parts[stage], parts[stage + 1]
            hidden = [self.divisible(outputs * architecture["expand"][place]) for place in places]
            blocks = [Bottleneck(inputs, hidden[0], outputs, self.strides[stage], True)]
            blocks += [Bottleneck(outputs, number, outputs, 1, False) for number in hidden[1:]]
            network.add_module(f"stage{stage + 1}", nn.Sequential(*blocks))
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.flatten = nn.Flatten()
        network.dropout = nn.Dropout(self.dropout)
        network.fc = nn.Linear(parts[-1], classes)
        return network
