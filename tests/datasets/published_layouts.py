"""Every downloadable set in its published layout, made small."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def md5(path: Path) -> str:
    return "md5:" + hashlib.md5(path.read_bytes()).hexdigest()


def random_pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def jpeg(pixels: np.ndarray) -> bytes:
    """(height, width, 3) or (height, width) uint8 as the content of a JPEG file."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


def make_cifar10(folder: Path) -> Path:
    """Five batches of 4 training images and a test batch of 6, in the published layout."""
    members = {}
    for position, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        count = 6 if name == "test_batch" else 4
        batch = {
            "data": random_pixels(count, 3072, seed=position),
            "labels": [(position + i) % 10 for i in range(count)],
        }
        members[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch)
    members["cifar-10-batches-py/batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    write_tar(folder / "cifar-10-python.tar.gz", members)
    return folder / "cifar-10-python.tar.gz"


def make_cifar100(folder: Path) -> Path:
    members = {}
    for position, name in enumerate(("train", "test")):
        batch = {
            "data": random_pixels(5, 3072, seed=position),
            "fine_labels": [99, 0, 5, 17, 42],
            "coarse_labels": [0, 1, 2, 3, 4],
        }
        members[f"cifar-100-python/{name}"] = pickle.dumps(batch)
    members["cifar-100-python/meta"] = pickle.dumps({"fine_label_names": ["x"] * 100})
    write_tar(folder / "cifar-100-python.tar.gz", members)
    return folder / "cifar-100-python.tar.gz"


def make_svhn(folder: Path, part: str = "test") -> Path:
    """Five images whose published labels are 10 (a zero), 1, 2, 3, 4."""
    path = folder / f"{part}_32x32.mat"
    labels = np.array([[10], [1], [2], [3], [4]], dtype=np.uint8)
    scipy.io.savemat(path, {"X": random_pixels(32, 32, 3, 5), "y": labels}, do_compression=True)
    return path


def make_textures(folder: Path) -> Path:
    """Two classes, one image each in every part of partition 1; sizes vary, one image is grey."""
    members = {}
    for number, part in enumerate(("train", "val", "test")):
        lines = []
        for name in ("striped", "banded"):
            shape = (40, 60, 3) if name == "banded" else (50, 36 + number)
            lines.append(f"{name}/{name}_{part}.jpg")
            content = jpeg(random_pixels(*shape, seed=number))
            members[f"dtd/images/{lines[-1]}"] = content
        members[f"dtd/labels/{part}1.txt"] = "\n".join([*lines, ""]).encode()
    write_tar(folder / "dtd-r1.0.1.tar.gz", members)
    return folder / "dtd-r1.0.1.tar.gz"


def make_tiny_imagenet(folder: Path) -> Path:
    """Two classes, wnids.txt not sorted, 12 val and 12 test images, 2 training images a class."""
    top = "tiny-imagenet-200"
    annotations = []
    with zipfile.ZipFile(folder / f"{top}.zip", "w") as archive:
        archive.writestr(f"{top}/wnids.txt", "n02\nn01\n")
        for wnid in ("n02", "n01"):
            archive.writestr(f"{top}/train/{wnid}/{wnid}_boxes.txt", "")
            for i in range(2):
                image = jpeg(random_pixels(64, 64, 3, seed=i))
                archive.writestr(f"{top}/train/{wnid}/images/{wnid}_{i}.JPEG", image)
        for i in range(12):
            shape = (64, 64) if i == 3 else (64, 64, 3)  # some published images are grey
            archive.writestr(f"{top}/val/images/val_{i}.JPEG", jpeg(random_pixels(*shape, seed=i)))
            annotations.append(f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t9\t9\n")
            archive.writestr(
                f"{top}/test/images/test_{i}.JPEG", jpeg(random_pixels(*shape, seed=i))
            )
        archive.writestr(f"{top}/val/val_annotations.txt", "".join(annotations))
    return folder / f"{top}.zip"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "svhn": make_svhn,
    "textures": make_textures,
    "tiny_imagenet": make_tiny_imagenet,
}
