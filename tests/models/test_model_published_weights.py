"""The published CIFAR networks reach their accuracies on real images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.densenet import DenseNetBC
from progip.models.loading import load_network
from progip.models.resnet_cifar import CifarResNet
from progip.models.training import evaluate

CIFAR = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
CIFAR100 = ([0.507, 0.4865, 0.4409], [0.2673, 0.2564, 0.2761])
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


@pytest.mark.parametrize(
    ("count", "percent"), [(1000, 75.1), pytest.param(5000, 72.1, marks=pytest.mark.slow)]
)
def test_accuracy_on_test_images_of_cifar100(real_data: Path, count: int, percent: float) -> None:
    """Of all 10,000, which are not among the real data of the tests, 72.63 %, as published."""
    weights = real_data / "weights" / "cifar100_resnet56-f2eff4c8.pt"
    spec = CifarResNet(name="resnet56", depth=56, classes=100, shortcut="B", weights=str(weights))
    network = load_network(spec, image_shape=(3, 32, 32)).to(memory_format=torch.channels_last)
    with np.load(real_data / "cifar100" / "test_lossless_5000.npz") as arrays:
        found = {name: arrays[name][:count] for name in ("data", "labels", "index")}
    images = Images(found["data"], found["labels"].astype(np.int64), found["index"])
    assert round(100 * evaluate(network, images, *CIFAR100, batch_size=32), 1) == percent


def test_weights_of_the_other_shortcut_do_not_fit(real_data: Path) -> None:
    weights = real_data / "weights" / "cifar100_resnet56-f2eff4c8.pt"
    spec = CifarResNet(name="resnet56", depth=56, classes=100, weights=str(weights))
    with pytest.raises(ProgipError, match=r"depth=56, shortcut=A\).*layer2\.0\.downsample"):
        load_network(spec)
