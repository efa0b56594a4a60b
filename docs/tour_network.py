"""The network of tour.py: any PyTorch module will do; images in, logits out."""

from dataclasses import dataclass

from torch import Tensor, nn

from progip.models.base import Model


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        )  # fmt: skip
        self.classify = nn.Linear(32 * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images).flatten(1))


@dataclass(kw_only=True)
class TourModel(Model):
    """What campaigns build it from; fields would be options."""

    def network(self) -> nn.Module:
        return Net(self.channels, self.classes)
