"""The demo network: the smallest CIFAR ResNet on 16x16 single-channel digits."""

from dataclasses import dataclass

from torch import nn

from progip.models.base import Model
from progip.models.resnet_cifar import CifarResNetModule


@dataclass(kw_only=True)
class DigitsResNet(Model):
    """ResNet-8 (one block a stage; 74,872 parameters for 8 classes) for 16x16 digits.

    The CIFAR form of He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016.
    Its weights are packaged and were made by ``python -m progip train model=digits_resnet``.
    """

    classes: int = 8
    channels: int = 1

    def network(self) -> nn.Module:
        """Input (n, channels, 16, 16)."""
        return CifarResNetModule(8, self.classes, self.channels, pool=4)
