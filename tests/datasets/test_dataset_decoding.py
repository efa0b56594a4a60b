"""What each published layout is decoded to: labels, order, size, filter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_layouts import (
    make_cifar10,
    make_cifar100,
    make_svhn,
    make_textures,
    make_tiny_imagenet,
    md5,
    random_pixels,
)

from progip.datasets.cifar import Cifar10, Cifar100
from progip.datasets.svhn import Svhn
from progip.datasets.textures import Textures
from progip.datasets.tiny_imagenet import TinyImagenet
from progip.errors import ProgipError


@pytest.fixture
def textures(tmp_path: Path) -> Any:
    checksum = md5(make_textures(tmp_path))
    return lambda **options: Textures(
        name="textures", calibration=1, folder=str(tmp_path), checksum=checksum, **options
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    checksum = md5(make_tiny_imagenet(tmp_path))
    return lambda **options: TinyImagenet(
        name="tiny", calibration=1, folder=str(tmp_path), checksum=checksum, **options
    )


def test_cifar10_batches_are_joined_in_their_order(tmp_path: Path) -> None:
    dataset = Cifar10(
        name="cifar10", calibration=2, folder=str(tmp_path), checksum=md5(make_cifar10(tmp_path))
    )
    train = dataset.split("train")
    expected = np.concatenate([random_pixels(4, 3072, seed=seed) for seed in range(5)])
    assert np.array_equal(train.pixels.reshape(20, 3072), expected)
    assert train.labels[:8].tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
    assert len(dataset.split("evaluation")) == 4


def test_cifar100_has_the_fine_labels(tmp_path: Path) -> None:
    dataset = Cifar100(
        name="cifar100", calibration=2, folder=str(tmp_path), checksum=md5(make_cifar100(tmp_path))
    )
    assert dataset.test_images().labels.tolist() == [99, 0, 5, 17, 42]
    assert dataset.shape == (3, 32, 32)


def test_svhn_parts_are_two_files_and_ten_is_zero(tmp_path: Path) -> None:
    train, test = make_svhn(tmp_path, "train"), make_svhn(tmp_path)
    dataset = Svhn(
        name="svhn",
        calibration=2,
        folder=str(tmp_path),
        checksum=md5(test),
        checksum_train=md5(train),
    )
    assert dataset.split("train").labels.tolist() == [0, 1, 2, 3, 4]
    published = random_pixels(32, 32, 3, 5)
    assert np.array_equal(dataset.test_images().pixels, published.transpose(3, 2, 0, 1))


def test_textures_are_of_one_size_whatever_theirs(textures: Any) -> None:
    images = textures().test_images()
    assert images.pixels.shape == (6, 3, 32, 32)
    assert images.labels.tolist() == [1, 0] * 3  # alphabetical: banded, striped
    assert images.index.tolist() == list(range(6))
    assert textures(size=20).shape == (3, 20, 20)
    assert not np.array_equal(textures(interpolation="box").test_images().pixels, images.pixels)
    grey = images.pixels[0]
    assert np.array_equal(grey[0], grey[1])


def test_textures_can_keep_parts_for_training(textures: Any) -> None:
    dataset = textures(parts=["test"])
    assert dataset.test_images().index.tolist() == [4, 5]
    assert dataset.train_images().index.tolist() == [0, 1, 2, 3]
    with pytest.raises(ProgipError, match="leaves none for training"):
        textures().train_images()
    with pytest.raises(ProgipError, match=r"lacks dtd/labels/train2\.txt"):
        textures(partition=2).test_images()
    with pytest.raises(ProgipError, match="classes=1 but there are 2"):
        textures(classes=1).test_images()


def test_tiny_imagenet_val_is_labelled_and_in_the_order_of_its_numbers(tiny: Any) -> None:
    images = tiny().test_images()
    assert images.pixels.shape == (12, 3, 64, 64)
    assert images.index.tolist() == list(range(12))
    assert images.labels.tolist() == [0, 1] * 6  # n01, n02 sorted, though wnids.txt is not
    train = tiny().train_images()
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.index.tolist() == [0, 1, 2, 3]


def test_tiny_imagenet_test_has_no_labels(tiny: Any) -> None:
    images = tiny(test_part="test").test_images()
    assert images.labels.tolist() == [-1] * 12
    assert images.index.tolist() == list(range(12))


def test_tiny_imagenet_modes(tiny: Any) -> None:
    whole = tiny().test_images().pixels
    assert np.array_equal(tiny(size=32).test_images().pixels, whole[:, :, 1::2, 1::2])  # nearest
    cropped = tiny(mode="crop", size=32).test_images().pixels
    assert np.array_equal(cropped, whole[:, :, 16:48, 16:48])
    means = whole.reshape(12, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    boxed = tiny(size=32, interpolation="box").test_images().pixels
    assert np.abs(boxed - means).max() <= 1  # Pillow rounds after each axis
    filters = ("nearest", "box", "bilinear", "bicubic", "lanczos")
    results = {tiny(size=32, interpolation=f).test_images().fingerprint() for f in filters}
    assert len(results) == 5  # the cache of decoded arrays tells them apart
