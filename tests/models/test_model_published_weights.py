"""The published CIFAR-10 networks reach their accuracies on real images."""

from pathlib import Path

import pytest
import torch

from progip.datasets.base import Images
from progip.models.base import Model
from progip.models.densenet import DenseNetBC
from progip.models.loading import load_network
from progip.models.resnet_cifar import CifarResNet
from progip.models.training import evaluate

CIFAR = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
DENSENET = DenseNetBC(name="densenet")


@pytest.mark.parametrize(
    ("spec", "file", "normalisation", "percent"),
    [
        (DENSENET, "densenet_bc_100_12_cifar10_lab.pth", CIFAR, 94.5),
        pytest.param(
            *(DENSENET, "densenet_bc_100_12_cifar10_mit.pth.tar", CIFAR, 94.1),
            marks=pytest.mark.slow,
        ),
        (CifarResNet(name="resnet20", depth=20), "resnet20-12fca82f.th", IMAGENET, 91.6),
        (CifarResNet(name="resnet56", depth=56), "resnet56-4bfd9763.th", IMAGENET, 92.7),
    ],
    ids=["densenet-lab", "densenet-mit", "resnet20", "resnet56"],
)
def test_accuracy_on_1017_test_images(
    real_data: Path,
    cifar_test: Images,
    spec: Model,
    file: str,
    normalisation: tuple[list[float], list[float]],
    percent: float,
) -> None:
    spec.weights = str(real_data / "weights" / file)
    network = load_network(spec, image_shape=(3, 32, 32))
    network = network.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    accuracy = evaluate(network, cifar_test, *normalisation, batch_size=32)
    assert round(100 * accuracy, 1) == percent
