"""The three splits of any set: disjoint, exhaustive, stable; and the embedded digits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from progip.datasets.base import Dataset, Images
from progip.datasets.digits import Digits
from progip.errors import ProgipError


@dataclass(kw_only=True)
class Counted(Dataset):
    """``count`` numbered test images, counting how often they are read."""

    name: str = "counted"
    classes: int = 2
    count: int = 20
    reads: int = 0

    def train_images(self) -> Images:
        return self.test_images()

    def test_images(self) -> Images:
        self.reads += 1
        numbers = np.arange(self.count)
        return Images(numbers.astype(np.uint8).reshape(-1, 1, 1, 1), numbers % 2, numbers)


def unseen(**options: Any) -> Digits:
    given = {"classes": 2, "digits": [8, 9], "train_size": 0, "calibration": 100, **options}
    return Digits(name="digits_unseen", **given)


@given(count=st.integers(2, 60), data=st.data())
def test_calibration_and_evaluation_partition_the_test_images(count: int, data: Any) -> None:
    calibration = data.draw(st.integers(1, count - 1))
    dataset = Counted(count=count, calibration=calibration)
    first = dataset.split("calibration").index.tolist()
    rest = dataset.split("evaluation").index.tolist()
    assert len(first) == calibration
    assert sorted(first + rest) == list(range(count))
    assert first == sorted(first)
    again = Counted(count=count, calibration=calibration)
    assert again.split("calibration").index.tolist() == first


@given(st.integers(1, 18), st.integers(1, 18))
def test_a_larger_calibration_split_holds_the_smaller_one(one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    inner = Counted(calibration=smaller).split("calibration").index
    assert set(inner) <= set(Counted(calibration=larger).split("calibration").index)


@given(st.integers(6, 30))
def test_a_limit_keeps_the_calibration_images(limit: int) -> None:
    whole, part = Counted(calibration=5), Counted(calibration=5, limit=limit)
    assert np.array_equal(whole.split("calibration").index, part.split("calibration").index)
    assert set(part.split("evaluation").index) <= set(whole.split("evaluation").index)
    assert len(part.split("evaluation")) == min(limit, 20) - 5


def test_a_train_limit_keeps_the_first_training_images() -> None:
    assert Counted(calibration=5, train_limit=7).split("train").index.tolist() == list(range(7))
    assert len(Counted(calibration=5, train_limit=99).split("train")) == 20


def test_images_are_read_at_the_first_use_and_once() -> None:
    dataset = Counted(calibration=5)
    assert dataset.reads == 0
    dataset.split("calibration")
    dataset.split("evaluation")
    assert dataset.shape == (1, 1, 1)
    assert dataset.reads == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": -1}, "calibration=-1 is negative"),
        ({"limit": 0}, "limit=0 leaves no image"),
        ({"limit": -3}, "limit=-3 leaves no image"),
        ({"train_limit": 0}, "train_limit=0 leaves no image"),
        ({"interpolation": "linear"}, "interpolation=linear is not one of nearest, box, bilinear"),
        ({"classes": 0}, "classes=0 is not positive"),
        ({"std": [1.0]}, "need one value per channel"),
        ({"std": [1.0, 1.0, 0.0]}, "every std above 0"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=f"dataset 'counted': .*{message}"):
        Counted(**options)


@pytest.mark.parametrize("calibration", [20, 21])
def test_calibration_must_leave_images_to_evaluate(calibration: int) -> None:
    dataset = Counted(calibration=calibration)
    for split in ("calibration", "evaluation"):
        with pytest.raises(ProgipError, match=f"calibration={calibration} leaves none of the 20"):
            dataset.split(split)  # type: ignore[arg-type]
    with pytest.raises(ProgipError, match=r"leaves none of the 5 .* \(limit=5\)"):
        Counted(calibration=5, limit=5).split("evaluation")


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(ProgipError, match="the calibration split is empty"):
        Counted(calibration=0).split("calibration")
    for split in ("train", "evaluation"):
        with pytest.raises(ProgipError, match=f"the {split} split is empty"):
            Counted(count=0, calibration=0).split(split)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no split 'test'"):
        Counted().split("test")  # type: ignore[arg-type]


def test_tensor_normalises_each_channel_and_wants_a_mean_for_each() -> None:
    images = Images(np.full((2, 3, 1, 1), 51, np.uint8), np.zeros(2), np.arange(2))
    tensor = images.tensor([0.0, 0.1, 0.2], [1.0, 0.5, 0.2])
    assert torch.allclose(tensor[1, :, 0, 0], torch.tensor([0.2, 0.2, 0.0]), atol=1e-7)
    with pytest.raises(ProgipError, match=r"3 channel\(s\) but mean has 1 and std 1"):
        images.tensor([0.5], [0.5])


def test_digits_are_split_as_documented() -> None:
    dataset = Digits(name="digits")
    train = dataset.split("train")
    calibration = dataset.split("calibration")
    evaluation = dataset.split("evaluation")
    assert [len(train), len(calibration), len(evaluation)] == [800, 250, 393]
    together = np.concatenate([train.index, calibration.index, evaluation.index])
    assert len(set(together)) == len(together) == 1443
    assert train.pixels.shape[1:] == dataset.shape == (1, 16, 16)
    assert train.pixels.dtype == np.uint8
    assert train.pixels.max() == 255
    assert set(np.bincount(train.labels)) <= {98, 99, 100, 101, 102}  # stratified
    # of the demo network's training images: a change here makes its weights worthless
    assert train.fingerprint().startswith("76ee85fb7d057b64")


def test_the_normalisation_of_digits_was_measured() -> None:
    dataset = Digits(name="digits")
    pixels = dataset.split("train").pixels / 255
    assert [round(pixels.mean(), 4)] == dataset.mean
    assert [round(pixels.std(), 4)] == dataset.std


def test_digits_at_their_published_size_are_the_published_ones() -> None:
    from sklearn.datasets import load_digits

    images = Digits(name="digits", size=8).split("evaluation")
    published = load_digits()
    expected = np.rint(published.images[images.index] * 255 / 16)
    assert np.array_equal(images.pixels[:, 0], expected)
    assert np.array_equal(images.labels, published.target[images.index])


def test_unseen_digits_are_all_test_images() -> None:
    dataset = unseen()
    assert len(dataset.split("calibration")) == 100
    assert len(dataset.split("evaluation")) == 254
    assert set(dataset.split("evaluation").labels) == {0, 1}
    with pytest.raises(ProgipError, match="it has no training images"):
        dataset.split("train")
    assert not set(dataset.split("evaluation").index) & set(
        Digits(name="digits").split("train").index
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": [8, 8]}, "must be different digits"),
        ({"digits": [8, 10]}, "must be different digits"),
        ({"digits": [8]}, "classes=2 is not the number of its digits, 1"),
        ({"train_size": 1}, "train_size=1 is neither 0"),
        ({"size": 0}, "size=0"),
    ],
)
def test_an_option_of_digits_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=f"dataset 'digits_unseen': .*{message}"):
        unseen(**options)


def test_training_must_leave_images_for_testing() -> None:
    with pytest.raises(ProgipError, match="train_size=400 leaves too few of the 354"):
        unseen(train_size=400).split("train")
