"""The MobileNet whose depth, hidden channels and kernels can be chosen."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from progip.errors import ProgipError
from progip.models.dynamic.space import Architecture, Space


class InvertedResidual(nn.Module):
    """bn(1x1(relu6(bn(depthwise(relu6(bn(1x1(x)))))))), plus x where the shape is the same."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU6()
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU6()
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self._adds = not first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.depthwise(out)))
        out = self.bn3(self.conv3(out))
        return out + x if self._adds else out

    def hidden(self) -> list[tuple[list[nn.Module], nn.Module]]:
        """Layers whose output channels are hidden ones, and the one that takes these in."""
        return [([self.conv1, self.bn1, self.depthwise, self.bn2], self.conv3)]


@dataclass(kw_only=True)
class MobileNetSpace(Space):
    """Networks of inverted residuals with elastic depth, expand ratio and kernel.

    Blocks of MobileNet-V2 (Sandler et al., CVPR 2018) with the choices of Once-for-All (Cai et al.,
    ICLR 2020) and ProARD: a smaller kernel is the middle of the larger one, times a learned matrix.

    Attributes:
        kernel: sides of the depthwise convolution; odd.
        last: channels before the last layer.
    """

    family: ClassVar[str] = "mobilenet"

    base: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])
    depth: list[int] = field(default_factory=lambda: [2, 3, 4])
    expand: list[float] = field(default_factory=lambda: [3.0, 4.0, 6.0])
    widths: list[int] = field(default_factory=lambda: [24, 40, 80, 96, 160])
    strides: list[int] = field(default_factory=lambda: [1, 2, 2, 1, 2])
    stem: int = 32
    kernel: list[int] = field(default_factory=lambda: [3, 5, 7])
    last: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(k % 2 == 0 for k in self.kernel):
            raise ProgipError(f"space.kernel={self.kernel} must be odd, so that there is a middle")
        self._must("last", self.last > 0, "must be above 0")

    @property
    def choices(self) -> dict[str, list[float]]:
        return {"depth": list(self.depth), "expand": list(self.expand), "kernel": list(self.kernel)}

    def network(self, architecture: Architecture, classes: int, channels: int) -> nn.Module:
        network = nn.Sequential()
        network.conv1 = nn.Conv2d(channels, self.stem, 3, padding=1, bias=False)
        network.bn1 = nn.BatchNorm2d(self.stem)
        network.relu = nn.ReLU6()
        inputs = self.stem
        for stage, places in enumerate(self.blocks(architecture)):
            outputs, blocks = self.widths[stage], []
            for number, place in enumerate(places):
                hidden = self.divisible(inputs * architecture["expand"][place])
                kernel = int(architecture["kernel"][place])
                stride = 1 if number else self.strides[stage]
                first = number == 0
                blocks.append(InvertedResidual(inputs, hidden, outputs, kernel, stride, first))
                inputs = outputs
            network.add_module(f"stage{stage + 1}", nn.Sequential(*blocks))
        network.conv2 = nn.Conv2d(inputs, self.last, 1, bias=False)
        network.bn2 = nn.BatchNorm2d(self.last)
        network.relu2 = nn.ReLU6()
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.flatten = nn.Flatten()
        network.dropout = nn.Dropout(self.dropout)
        network.fc = nn.Linear(self.last, classes)
        return network
