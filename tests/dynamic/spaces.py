"""Small spaces of both families for tests."""

from progip.models.dynamic.mobilenet import MobileNetSpace
from progip.models.dynamic.resnet import ResNetSpace
from progip.models.dynamic.space import Space


def resnet() -> ResNetSpace:
    return ResNetSpace(
        base=[1, 1], depth=[0, 1, 2], expand=[0.25, 0.5], widths=[8, 16], strides=[1, 2],
        stem=8, divisor=2, width=[0.5, 1.0],
    )  # fmt: skip


def mobilenet() -> MobileNetSpace:
    return MobileNetSpace(
        base=[0, 0], depth=[1, 2, 3], expand=[2, 3], widths=[6, 8], strides=[1, 2],
        stem=4, divisor=2, kernel=[3, 5, 7], last=12,
    )  # fmt: skip


SPACES: dict[str, Space] = {"resnet": resnet(), "mobilenet": mobilenet()}
