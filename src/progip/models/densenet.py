"""DenseNet-BC for 32x32 input (Huang, Liu, van der Maaten, Weinberger, CVPR 2017)."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model


class BottleneckLayer(nn.Module):
    """(n, c, h, w) to (n, c + growth, h, w): the input and, behind it, ``growth`` new channels."""

    def __init__(self, planes: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(planes, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(self.relu1(self.bn1(x)))
        out = self.conv2(self.relu2(self.bn2(out)))
        return torch.cat([x, out], 1)


class DenseBlock(nn.Module):
    """``layers`` bottleneck layers in a row."""

    def __init__(self, planes: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(BottleneckLayer(planes + i * growth, growth) for i in range(layers))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Transition(nn.Module):
    """(n, c, h, w) to (n, planes, h / 2, w / 2)."""

    def __init__(self, planes_in: int, planes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes_in)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(planes_in, planes, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv1(self.relu(self.bn1(x))))


class DenseNetModule(nn.Module):
    """(n, channels, 32, 32) to logits (n, classes).

    Parameter names are those of github.com/andreasveit/densenet-pytorch and of the networks
    published with ODIN and the Mahalanobis detector: conv1, block{1,2,3}.layer.{i}.{bn1,conv1,
    bn2,conv2}, trans{1,2}.{bn1,conv1}, bn1, fc.
    """

    def __init__(
        self, depth: int, growth: int, reduction: float, classes: int, channels: int = 3
    ) -> None:
        super().__init__()
        layers = (depth - 4) // 6
        planes = 2 * growth
        self.conv1 = nn.Conv2d(channels, planes, 3, padding=1, bias=False)
        self.block1 = DenseBlock(planes, layers, growth)
        planes += layers * growth
        kept = math.floor(planes * reduction)
        self.trans1 = Transition(planes, kept)
        self.block2 = DenseBlock(kept, layers, growth)
        planes = kept + layers * growth
        kept = math.floor(planes * reduction)
        self.trans2 = Transition(planes, kept)
        self.block3 = DenseBlock(kept, layers, growth)
        planes = kept + layers * growth
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.avgpool = nn.AvgPool2d(8)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(planes, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.trans1(self.block1(self.conv1(x)))
        out = self.trans2(self.block2(out))
        out = self.relu(self.bn1(self.block3(out)))
        return self.fc(self.flatten(self.avgpool(out)))


@dataclass(kw_only=True)
class DenseNetBC(Model):
    """DenseNet-BC for 32x32 input: bottleneck layers, compression at the transitions, no dropout.

    Huang, Liu, van der Maaten, Weinberger: Densely connected convolutional networks, CVPR 2017.

    Attributes:
        depth: 6 n + 4 layers, for n bottleneck layers in each of the three blocks.
        growth: channels that each layer adds.
        reduction: share of the channels that a transition keeps, in (0, 1].

    Raises:
        ProgipError: where one of them is out of range.
    """

    depth: int = 100
    growth: int = 12
    reduction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4:
            raise ProgipError(
                f"model.depth of a DenseNet-BC is 6 n + 4 (40, 100, 190, ...), not {self.depth}"
            )
        if self.growth < 1:
            raise ProgipError(f"model.growth must be at least 1, not {self.growth}")
        if not 0 < self.reduction <= 1:
            raise ProgipError(f"model.reduction must be in (0, 1], not {self.reduction}")

    def network(self) -> nn.Module:
        """Input (n, channels, 32, 32)."""
        return DenseNetModule(self.depth, self.growth, self.reduction, self.classes, self.channels)
