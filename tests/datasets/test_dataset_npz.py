"""Arrays from .npz: what is read, and one error for each way to get it wrong."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from published_layouts import random_pixels

from progip.datasets.npz import Npz
from progip.errors import ProgipError


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "set.npz"
    np.savez(path, **{"data": random_pixels(6, 3, 4, 4), "labels": np.arange(6), **arrays})
    return path


def read(path: Path, **options: Any) -> Npz:
    return Npz(**{"name": "own", "classes": 6, "calibration": 2, "test": str(path), **options})


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, index=np.arange(40, 46, dtype=np.int32))
    images = read(path, train=str(path)).test_images()
    assert np.array_equal(images.pixels, random_pixels(6, 3, 4, 4))
    assert images.labels.dtype == images.index.dtype == np.int64
    assert images.index.tolist() == list(range(40, 46))
    assert len(read(path, train=str(path)).split("train")) == 6


def test_paths_start_from_the_folder_else_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    assert len(read(Path("set.npz"), folder=str(tmp_path)).test_images()) == 6
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("set.npz")).test_images()) == 6


def test_labels_and_index_may_be_missing_in_an_ood_set(tmp_path: Path) -> None:
    path = tmp_path / "ood.npz"
    np.savez(path, data=random_pixels(5, 1, 4, 4))
    images = read(path).test_images()
    assert images.labels.tolist() == [-1] * 5
    assert images.index.tolist() == list(range(5))
    with pytest.raises(ProgipError, match="'labels' is missing; training images need it"):
        read(path, train=str(path)).split("train")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((6, 3, 4, 4), np.float32)}, "'data' is float32, not uint8"),
        ({"data": random_pixels(6, 4, 4)}, r"'data' has shape \(6, 4, 4\), not"),
        (
            {"data": random_pixels(6, 4, 4, 3)},
            r"'data' has shape .* transpose it by \(0, 3, 1, 2\)",
        ),
        ({"data": random_pixels(0, 3, 4, 4)}, "'data' holds no image"),
        ({"data": random_pixels(6, 3, 0, 4)}, r"'data' has shape \(6, 3, 0, 4\)"),
        ({"data": np.array([{}, {}])}, "'data' cannot be read .* Python objects"),
        ({"labels": np.arange(5)}, r"'labels' is int64 of shape \(5,\), not integers of shape"),
        ({"labels": np.zeros(6)}, "'labels' is float64"),
        ({"labels": np.arange(1, 7)}, r"'labels' range from 1 to 6, not within 0\.\.5"),
        ({"labels": np.arange(6) - 1}, "'labels' range from -1 to 4"),
        ({"index": np.arange(7)}, "'index' is int64 of shape"),
    ],
)
def test_a_wrong_array_is_named_with_its_file(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(ProgipError, match=f"(?s)set.npz: {message}") as caught:
        read(path).split("evaluation")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named_beside_those_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=random_pixels(2, 3, 4, 4))
    with pytest.raises(ProgipError, match=r"set.npz: has no key 'data', only images"):
        read(tmp_path / "set.npz").test_images()


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float, save: Any) -> None:
    path = tmp_path / "set.npz"
    save(path, data=random_pixels(6, 3, 4, 4), labels=np.arange(6))
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ProgipError, match=r"set\.npz is truncated or no \.npz file"):
        read(path).test_images()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_is_noticed(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "set.npz"
    save(path, data=random_pixels(20, 3, 8, 8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ProgipError, match=r"set\.npz: 'data' cannot be read"):
        read(path).test_images()


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(ProgipError, match="holds one bare array"):
        read(tmp_path / "bare.npy").test_images()
    (tmp_path / "text.npz").write_text("no arrays here")
    with pytest.raises(ProgipError, match=r"truncated or no .npz file"):
        read(tmp_path / "text.npz").test_images()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ProgipError, match=r"dataset\.test of dataset 'own' is null.*set dataset.test"
    ):
        Npz(name="own", classes=2).split("evaluation")
    with pytest.raises(ProgipError, match=r"dataset\.train of dataset 'own' is null"):
        Npz(name="own", classes=2).split("train")
    with pytest.raises(ProgipError, match=r"test=none.npz is not at /.*none.npz; set test to"):
        read(Path("none.npz"), folder=str(tmp_path)).split("evaluation")
    with pytest.raises(ProgipError, match=r"folder=.*nowhere is not there"):
        read(Path("none.npz"), folder=str(tmp_path / "nowhere")).split("evaluation")


@pytest.mark.parametrize(
    ("name", "calibration", "evaluation", "labelled"),
    [("cifar10_npz", 300, 717, True), ("tiny_imagenet_npz", 1000, 3000, False)],
)
def test_the_real_arrays(
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    calibration: int,
    evaluation: int,
    labelled: bool,
) -> None:
    monkeypatch.setenv("PROGIP_DATA", str(shared_data))
    root = Path(__file__).parents[2]
    options = OmegaConf.load(root / "conf" / "dataset" / f"{name}.yaml")
    del options["_target_"]
    dataset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Npz), options))
    assert isinstance(dataset, Npz)
    assert len(dataset.split("calibration")) == calibration
    assert len(dataset.split("evaluation")) == evaluation
    assert dataset.shape == (3, 32, 32)
    assert (dataset.split("evaluation").labels >= 0).all() == labelled
    if labelled:
        assert len(dataset.split("train")) == 6068


def packed(folder: Path, sizes: list[tuple[int, int]], **changes: Any) -> tuple[Path, list]:
    """A file of JPEG images, and what another reading of them gives."""
    parts, seen = [], []
    for number, (height, width) in enumerate(sizes):
        pixels = random_pixels(1, 3, height, width)[0].transpose(1, 2, 0)
        content = BytesIO()
        Image.fromarray(np.roll(pixels, number, 0)).save(content, "JPEG", quality=95)
        parts.append(content.getvalue())
        seen.append(np.asarray(Image.open(BytesIO(parts[-1]))).transpose(2, 0, 1))
    ends = np.cumsum([0, *map(len, parts)])
    path = folder / "packed.npz"
    jpeg = np.frombuffer(b"".join(parts), np.uint8)
    arrays = {"jpeg": jpeg, "offset": ends, "labels": np.arange(len(sizes)), **changes}
    np.savez(path, **arrays)
    return path, seen


def test_packed_images_are_decoded_and_cut(tmp_path: Path) -> None:
    path, seen = packed(tmp_path, [(16, 16)] * 3)
    assert np.array_equal(read(path).test_images().pixels, np.stack(seen))
    path, seen = packed(tmp_path, [(16, 16), (20, 12)])
    found = read(path, crop=8).test_images().pixels
    assert np.array_equal(found[0], seen[0][:, 4:12, 4:12])
    assert np.array_equal(found[1], seen[1][:, 6:14, 2:10])


@pytest.mark.parametrize(
    ("sizes", "changes", "options", "message"),
    [
        ([(8, 8), (9, 8)], {}, {}, "has images of 2 sizes; set crop to one of all"),
        ([(8, 8)], {}, {"crop": 9}, "crop=9 does not fit image 0 of .*, 8 x 8"),
        ([(8, 8)], {"offset": np.array([0, 5])}, {}, "'offset' does not say where the images"),
        ([(8, 8)], {"jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 9])}, {}, "image 0 cann"),
    ],
)
def test_packed_images_that_do_not_fit(
    tmp_path: Path, sizes: list, changes: dict, options: dict, message: str
) -> None:
    path, _ = packed(tmp_path, sizes, **changes)
    with pytest.raises(ProgipError, match=message):
        read(path, **options).test_images()
