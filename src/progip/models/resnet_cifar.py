"""The CIFAR ResNets (He, Zhang, Ren, Sun, CVPR 2016, section 4.2) with shortcuts of both kinds."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model

WIDTHS = (16, 32, 64)
SHORTCUTS = ("A", "B")


class PadShortcut(nn.Module):
    """Option A of the paper: every second pixel, and zero channels added evenly on both sides.

    (n, c, h, w) to (n, c + 2 * padding, ceil(h / 2), ceil(w / 2)).
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the first convolution has the stride.

    A shortcut that changes the shape is a ``PadShortcut`` (option A), or a 1x1 convolution with
    batch normalisation called ``downsample`` (option B).
    """

    def __init__(self, planes_in: int, planes: int, stride: int, shortcut: str = "A") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self._projects = stride == 2 and shortcut == "B"
        if self._projects:
            self.downsample = nn.Sequential(
                nn.Conv2d(planes_in, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )
        else:
            self.shortcut = PadShortcut((planes - planes_in) // 2) if stride == 2 else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + (self.downsample(x) if self._projects else self.shortcut(x)))


class CifarResNetModule(nn.Module):
    """(n, channels, size, size) to logits (n, classes); ``size`` = 4 * ``pool``.

    Parameter names are those of the weights that are public for each kind of shortcut. Both: conv1,
    bn1, layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}. A, github.com/akamaster/pytorch_resnet_cifar10:
    linear. B, github.com/chenyaofo/pytorch-cifar-models: layer{2,3}.0.downsample.{0,1}, fc.
    """

    def __init__(
        self, depth: int, classes: int, channels: int = 3, pool: int = 8, shortcut: str = "A"
    ) -> None:
        super().__init__()
        self._head = "linear" if shortcut == "A" else "fc"
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = self._layer(WIDTHS[0], WIDTHS[0], blocks, 1, shortcut)
        self.layer2 = self._layer(WIDTHS[0], WIDTHS[1], blocks, 2, shortcut)
        self.layer3 = self._layer(WIDTHS[1], WIDTHS[2], blocks, 2, shortcut)
        self.avgpool = nn.AvgPool2d(pool)
        self.flatten = nn.Flatten()
        self.add_module(self._head, nn.Linear(WIDTHS[2], classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _layer(
        planes_in: int, planes: int, blocks: int, stride: int, shortcut: str
    ) -> nn.Sequential:
        rest = [BasicBlock(planes, planes, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(planes_in, planes, stride, shortcut), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        classify = self.get_submodule(self._head)
        return classify(self.flatten(self.avgpool(out)))


@dataclass(kw_only=True)
class CifarResNet(Model):
    """ResNet-20, 32, 44, 56, ... for 32x32 input.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016.

    Attributes:
        depth: 6 n + 2 layers, for n blocks in each of the three stages.
        shortcut: where the shape changes: ``A``, the paper's for CIFAR (every second pixel, zero
            channels added), or ``B`` (a 1x1 convolution with batch normalisation).

    Raises:
        ProgipError: where ``depth`` is not of that form, or there is no such shortcut.
    """

    depth: int = 20
    shortcut: str = "A"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 8 or self.depth % 6 != 2:
            raise ProgipError(
                f"model.depth of a CIFAR ResNet is 6 n + 2 (20, 32, 44, 56, ...), not {self.depth}"
            )

        if self.shortcut not in SHORTCUTS:
            raise ProgipError(f"model.shortcut must be A or B, not '{self.shortcut}'")

    def network(self) -> nn.Module:
        """Input (n, channels, 32, 32)."""
        return CifarResNetModule(self.depth, self.classes, self.channels, shortcut=self.shortcut)
