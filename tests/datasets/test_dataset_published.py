"""Downloadable sets: the true code path over a local server or a folder, and how it fails."""

import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_layouts import MAKERS, make_cifar10, make_svhn, make_tiny_imagenet, md5

from progip.compat import enable_torchvision
from progip.datasets.cifar import Cifar10, Cifar100
from progip.datasets.published import Published
from progip.datasets.svhn import Svhn
from progip.datasets.textures import Textures
from progip.datasets.tiny_imagenet import TinyImagenet
from progip.errors import ProgipError

SETS: dict[str, type[Published]] = {
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "svhn": Svhn,
    "textures": Textures,
    "tiny_imagenet": TinyImagenet,
}


def build(name: str, **options: Any) -> Any:
    return SETS[name](**{"name": name, "calibration": 1, **options})  # type: ignore[arg-type]


def leftovers(cache: Path) -> list[str]:
    """What lies in the cache beside the published files, the decoded arrays and the locks."""
    if not cache.is_dir():
        return []
    return [p.name for p in cache.iterdir() if p.suffix not in (".npz", ".lock")]


@pytest.mark.parametrize("name", SETS)
def test_downloaded_decoded_and_cached(name: str, server: Any, cache: Path) -> None:
    archive = MAKERS[name](server.folder)
    options = {"url": server.url, "checksum": md5(archive)}
    images = build(name, **options).test_images()
    assert images.pixels.dtype == np.uint8
    assert images.pixels.shape == (len(images), 3, *images.pixels.shape[2:])
    assert images.labels.dtype == images.index.dtype == np.int64
    assert server.requests == [f"/{archive.name}"]
    assert leftovers(cache) == [archive.name]
    again = build(name, **options).test_images()  # from the decoded arrays
    assert again.fingerprint() == images.fingerprint()
    assert np.array_equal(again.index, images.index)
    for stored in cache.glob("*.npz"):  # damaged: decoded again from the archive that is there
        stored.write_bytes(stored.read_bytes()[:-40])
    assert build(name, **options).test_images().fingerprint() == images.fingerprint()
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", SETS)
def test_the_published_file_in_a_folder(name: str, tmp_path: Path, cache: Path) -> None:
    archive = MAKERS[name](tmp_path)
    dataset = build(name, folder=str(tmp_path), checksum=md5(archive))
    assert len(dataset.test_images()) > 0
    assert leftovers(cache) == []


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_file_in_a_folder_is_named(name: str, tmp_path: Path) -> None:
    archive = MAKERS[name](tmp_path)
    dataset = build(name, folder=str(tmp_path))  # the published checksum is another
    with pytest.raises(
        ProgipError, match=f"{archive} is truncated or another file.* expected md5:"
    ):
        dataset.test_images()


@pytest.mark.parametrize("name", SETS)
def test_a_truncated_file_with_a_fitting_checksum_is_named(
    name: str, tmp_path: Path, cache: Path
) -> None:
    archive = MAKERS[name](tmp_path)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    dataset = build(name, folder=str(tmp_path), checksum=md5(archive))
    with pytest.raises(ProgipError, match=str(archive)) as caught:
        dataset.test_images()
    assert "\n" not in str(caught.value)
    assert leftovers(cache) == list(cache.glob("*.npz")) == []


@pytest.mark.parametrize("name", SETS)
def test_what_a_folder_lacks_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match=f"is not in {tmp_path}; get it from http.*folder=null"):
        build(name, folder=str(tmp_path)).test_images()
    with pytest.raises(ProgipError, match=r"folder=.*/nowhere is not there"):
        build(name, folder=str(tmp_path / "nowhere")).test_images()


def test_a_wrong_checksum_leaves_nothing_behind(server: Any, cache: Path) -> None:
    make_svhn(server.folder)
    with pytest.raises(
        ProgipError, match=f"{server.url}.* is truncated or another file.* md5:eb5a"
    ):
        build("svhn", url=server.url).test_images()
    assert leftovers(cache) == list(cache.glob("*.npz")) == []


def test_a_damaged_download_in_the_cache_is_replaced(server: Any, cache: Path) -> None:
    file = make_svhn(server.folder)
    cache.mkdir(parents=True)
    (cache / file.name).write_bytes(file.read_bytes()[:100])
    (cache / f".{file.name}.partial").mkdir()  # what a killed process left
    (cache / f".{file.name}.partial" / "half").write_text("half")
    assert len(build("svhn", url=server.url, checksum=md5(file)).test_images()) == 5
    assert leftovers(cache) == [file.name]


def test_a_connection_cut_short_leaves_nothing_behind(
    server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from http.server import SimpleHTTPRequestHandler

    file = make_svhn(server.folder)

    def half(self: Any, source: Any, output: Any) -> None:
        output.write(source.read()[:1000])
        self.close_connection = True

    monkeypatch.setattr(SimpleHTTPRequestHandler, "copyfile", half)
    with pytest.raises(ProgipError, match=f"cannot be downloaded from {server.url}") as caught:
        build("svhn", url=server.url, checksum=md5(file)).test_images()
    assert "\n" not in str(caught.value)
    assert leftovers(cache) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///nowhere", "SERVER/none"])
def test_the_unreachable_is_told_in_one_line(url: str, server: Any, cache: Path) -> None:
    url = url.replace("SERVER", server.url)
    with pytest.raises(ProgipError) as caught:
        build("cifar10", url=url).test_images()
    message = str(caught.value)
    assert f"cifar-10-python.tar.gz is not at {cache}" in message
    assert f"from {url}/cifar-10-python.tar.gz" in message
    assert "option folder" in message
    assert "PROGIP_CACHE" in message
    assert "\n" not in message
    assert leftovers(cache) == []


def test_a_file_address_is_a_mirror(tmp_path: Path) -> None:
    archive = make_cifar10(tmp_path)
    dataset = build("cifar10", url=tmp_path.as_uri(), checksum=md5(archive))
    assert len(dataset.split("train")) == 20


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ProgipError, match=r"cache folder .* cannot be made .*PROGIP_CACHE"):
        build("svhn", url="http://127.0.0.1:1").test_images()


def test_threads_that_want_the_same_file_download_it_once(server: Any, cache: Path) -> None:
    file = make_svhn(server.folder)
    found: list[str] = []

    def work() -> None:
        dataset = build("svhn", url=server.url, checksum=md5(file))
        found.append(dataset.test_images().fingerprint())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(server.requests) == 1
    assert leftovers(cache) == [file.name]


def test_processes_that_want_the_same_file_download_it_once(server: Any, cache: Path) -> None:
    file = make_svhn(server.folder)
    program = (
        "from progip.datasets.download import Remote, fetched; "
        f"print(fetched(Remote({file.name!r}, '{server.url}/{file.name}', '{md5(file)}')))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs == [f"{cache / file.name}\n".encode()] * 2
    assert len(server.requests) == 1
    assert leftovers(cache) == [file.name]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar10", {"url": "ftp://x"}, "url=ftp://x must begin with"),
        ("cifar10", {"checksum": "abc"}, "checksum=abc must be md5:HEX"),
        ("cifar10", {"url": "http://x", "folder": "y"}, "url=http://x has no effect beside folder"),
        ("svhn", {"checksum_train": "md5:12"}, "checksum_train=md5:12 must be md5:HEX"),
        ("textures", {"size": 0}, "size=0 is not"),
        ("textures", {"parts": ["test", "extra"]}, "parts=.* must be one or more of train, val"),
        ("textures", {"parts": []}, "parts=.* must be one or more of train, val"),
        ("textures", {"partition": 11}, "partition=11 is not in"),
        ("tiny_imagenet", {"mode": "squeeze"}, "mode=squeeze is not one of resize, crop"),
        ("tiny_imagenet", {"mode": "crop", "size": 65}, r"size=65 is not in 1\.\.64 for crop"),
        ("tiny_imagenet", {"size": 0}, "size=0 is not"),
        ("tiny_imagenet", {"test_part": "train"}, "test_part=train is not one of val, test"),
    ],
)
def test_an_option_out_of_range_is_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ProgipError, match=f"dataset '{name}': {message}"):
        build(name, **options)


def test_addresses_and_checksums_are_those_torchvision_knows() -> None:
    enable_torchvision()
    from torchvision import datasets

    for own, theirs in ((Cifar10, datasets.CIFAR10), (Cifar100, datasets.CIFAR100)):
        assert f"{own.SITE}/{own.FILE}" == theirs.url
        assert f"md5:{theirs.tgz_md5}" == own.PUBLISHED
    for part in ("train", "test"):
        remote = Svhn(name="svhn").remote(part)
        url, file, checksum = datasets.SVHN.split_list[part]
        assert (remote.url, remote.filename, remote.checksum) == (url, file, f"md5:{checksum}")
    assert f"{Textures.SITE}/{Textures.FILE}" == datasets.DTD._URL
    assert f"md5:{datasets.DTD._MD5}" == Textures.PUBLISHED


def extracted(name: str, folder: Path) -> Path:
    archive = MAKERS[name](folder)
    if archive.suffix == ".zip":
        zipfile.ZipFile(archive).extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    archive.unlink()
    return folder


@pytest.mark.parametrize("name", ["textures", "tiny_imagenet"])
def test_the_extracted_form_in_a_folder(name: str, tmp_path: Path, cache: Path) -> None:
    archived = tmp_path / "archived"
    archived.mkdir()
    archive = MAKERS[name](archived)
    expected = build(name, folder=str(archived), checksum=md5(archive)).test_images()
    folder = extracted(name, tmp_path)
    images = build(name, folder=str(folder)).test_images()
    assert images.fingerprint() == expected.fingerprint()
    with pytest.raises(ProgipError, match="holds its extracted form only"):
        build(name, folder=str(folder), checksum="md5:" + "0" * 32).test_images()
    victim = next(iter(sorted(folder.rglob("*_test.jpg")) + sorted(folder.rglob("val_*.JPEG"))))
    victim.write_bytes(victim.read_bytes()[:200])  # a changed folder is noticed, not served stale
    with pytest.raises(ProgipError, match=f"{victim.name} is no image or is damaged"):
        build(name, folder=str(folder)).test_images()


def test_extracted_cifar_batches_are_opened_only_with_their_published_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = extracted("cifar10", tmp_path)
    with pytest.raises(ProgipError, match=r"does not hold the published batches.* corrupted"):
        build("cifar10", folder=str(folder)).test_images()
    enable_torchvision()
    from torchvision.datasets import CIFAR10

    def actual(file: str) -> str:
        return md5(folder / "cifar-10-batches-py" / file).removeprefix("md5:")

    for name in ("train_list", "test_list"):
        entries = [[file, actual(file)] for file, _ in getattr(CIFAR10, name)]
        monkeypatch.setattr(CIFAR10, name, entries)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": actual("batches.meta")})
    assert len(build("cifar10", folder=str(folder)).test_images()) == 6


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    for name, file in (("cifar10", "cifar-10-python.tar.gz"), ("textures", "dtd-r1.0.1.tar.gz")):
        with tarfile.open(tmp_path / file, "w:gz"):
            pass
        dataset = build(name, folder=str(tmp_path), checksum=md5(tmp_path / file))
        with pytest.raises(ProgipError, match=f"dataset '{name}': {tmp_path / file}"):
            dataset.test_images()
    archive = make_tiny_imagenet(tmp_path)
    with zipfile.ZipFile(archive, "w") as empty:
        empty.writestr("tiny-imagenet-200/wnids.txt", "n01\n")
        empty.writestr("tiny-imagenet-200/val/val_annotations.txt", "")
    with pytest.raises(ProgipError, match=r"the test part of .* holds no image"):
        build("tiny_imagenet", folder=str(tmp_path), checksum=md5(archive)).test_images()
