"""ResNet-18 and ResNet-34 with the stem and first stage adapted to 32x32 input."""

from dataclasses import dataclass

import torch
from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); a 1x1 convolution where shapes differ."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or planes_in != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(planes_in, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))


class ResNetModule(nn.Module):
    """(n, channels, 32, 32) to logits (n, classes).

    Parameter names are those of github.com/pokaxpoka/deep_Mahalanobis_detector and
    github.com/kuangliu/pytorch-cifar: conv1, bn1, layer{1..4}.{i}.{conv1,bn1,conv2,bn2,shortcut},
    linear.
    """

    def __init__(self, blocks: tuple[int, ...], classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = self._layer(WIDTHS[0], WIDTHS[0], blocks[0], stride=1)
        self.layer2 = self._layer(WIDTHS[0], WIDTHS[1], blocks[1], stride=2)
        self.layer3 = self._layer(WIDTHS[1], WIDTHS[2], blocks[2], stride=2)
        self.layer4 = self._layer(WIDTHS[2], WIDTHS[3], blocks[3], stride=2)
        self.avgpool = nn.AvgPool2d(4)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(WIDTHS[3], classes)

    @staticmethod
    def _layer(planes_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(planes, planes, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(planes_in, planes, stride), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.linear(self.flatten(self.avgpool(out)))


@dataclass(kw_only=True)
class ResNet(Model):
    """ResNet-18 or ResNet-34 for 32x32 input.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016; the 3x3 stem
    without pooling as in Lee et al., NeurIPS 2018 (the Mahalanobis detector).

    Attributes:
        depth: 18 or 34.

    Raises:
        ProgipError: for another depth.
    """

    depth: int = 34

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in BLOCKS:
            raise ProgipError(f"model.depth of this ResNet is 18 or 34, not {self.depth}")

    def network(self) -> nn.Module:
        """Input (n, channels, 32, 32)."""
        return ResNetModule(BLOCKS[self.depth], self.classes, self.channels)
