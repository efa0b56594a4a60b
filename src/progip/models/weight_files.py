"""Fetches weight files and reads the state dict out of them."""

import hashlib
import logging
import re
import sys
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import numpy as np
import pooch
import safetensors
import torch
from safetensors.torch import load_file

from progip.cache import cache_root
from progip.errors import ProgipError
from progip.models.base import Model

PACKAGE_PREFIX = "package:"
CHUNK = 1 << 18  # bytes; at pooch's own 1 KiB the progress bar is the slowest part
#: what training scripts call the state dict inside the dictionary they save
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")


def locate(spec: Model) -> Path:
    """The local file of a model's weights, downloaded and checked where that is needed.

    Raises:
        ProgipError: where no weights are given, the file is missing or cannot be downloaded, or
            its sha256 is another.
    """
    source = spec.weights
    if not source:
        raise ProgipError(
            f"model '{spec.name}' has no weights: give model.weights=PATH (or a URL with "
            f"model.sha256), or train it: python -m progip train model={spec.name}"
        )
    scheme = urlparse(source).scheme
    if scheme in ("http", "https"):
        return _download(spec, source)
    if source.startswith(PACKAGE_PREFIX):
        path = Path(str(resources.files("progip.models") / "weights"))
        path /= source.removeprefix(PACKAGE_PREFIX)
    elif scheme == "file":
        path = Path(url2pathname(unquote(urlparse(source).path)))
    else:
        path = Path(source).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ProgipError(
            f"the weight file of model '{spec.name}' {what}: {path.absolute()}; "
            "correct model.weights"
        )
    if spec.sha256 is not None:
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != spec.sha256.lower():
            raise ProgipError(
                f"{path} is not the weight file that was asked for: its sha256 is {actual}, "
                f"model.sha256 says {spec.sha256}; get the file again or correct model.sha256"
            )
    return path


def _download(spec: Model, url: str) -> Path:
    if spec.sha256 is None:
        raise ProgipError(
            f"weights from a URL need their checksum: give model.sha256 (of {url}); "
            "sha256sum prints it for a file you trust"
        )
    folder, name = cache_root() / "weights", Path(urlparse(url).path).name or "weights"
    pooch.get_logger().setLevel(logging.WARNING)
    show = sys.stderr.isatty()
    try:
        fetched = pooch.retrieve(
            url,
            known_hash=f"sha256:{spec.sha256.lower()}",
            fname=f"{spec.sha256[:16].lower()}-{name}",
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=show, chunk_size=CHUNK, timeout=60),
        )
    except (ValueError, OSError) as problem:  # a wrong checksum; the net or the disk
        raise ProgipError(
            f"cannot fetch the weights of model '{spec.name}' from {url} into {folder}: "
            f"{problem}. Check model.weights and model.sha256, or download the file elsewhere "
            "and give its path"
        ) from problem
    return Path(fetched)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a ``.safetensors`` file or in what ``torch.save`` wrote, on the CPU.

    Wrappers (``{"state_dict": ...}``, ``{"net": ...}``, Lightning's checkpoints) are opened.
    Nothing in the file is ever executed.

    Raises:
        ProgipError: where the file is damaged, holds more than tensors, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        try:
            state: Any = load_file(path)
        except (safetensors.SafetensorError, OSError) as problem:
            what = _what_it_is(path) or f"is damaged or no safetensors file: {problem}"
            raise ProgipError(f"{path} {what}") from problem
    else:
        state = _opened(_unpickled(path), path)
    return state


def read_tensor(path: Path) -> torch.Tensor:
    """The one tensor in a ``.npy``, ``.safetensors`` or what ``torch.save`` wrote, on the CPU.

    Nothing in the file is ever executed.

    Raises:
        ProgipError: where the file is missing, damaged, or holds anything but one tensor.
    """
    if not path.is_file():
        raise ProgipError(f"there is no file {path.absolute()}")
    if path.suffix == ".npy":
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (ValueError, OSError, EOFError, TypeError) as problem:
            raise ProgipError(f"{path} is damaged or no array of numbers: {problem}") from problem
    content = read_state_dict(path) if path.suffix == ".safetensors" else _unpickled(path)
    if isinstance(content, Mapping) and len(content) == 1:
        content = next(iter(content.values()))
    if not isinstance(content, torch.Tensor):
        number = f"{len(content)} entries" if isinstance(content, Mapping) else "no tensor"
        raise ProgipError(f"{path} holds {number}; a file with one tensor is wanted")
    return content.detach()


def _what_it_is(path: Path) -> str:
    """What a file that holds no weights is instead; "" where it is nothing one would know."""
    try:
        start = path.read_bytes()[:400]
        text = start.decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    if not text:
        return "is damaged (empty); get it again"
    if text.lower().startswith(("<!doctype html", "<html")):
        return "is a web page, as a download that failed leaves; get the file itself"
    if text.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS; get the file itself with: git lfs pull"
    if all(character.isprintable() or character.isspace() for character in text):
        return f"is a text file, no weights (it begins: {text.splitlines()[0][:40]!r})"
    return ""


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # about pickle protocols; what matters follows as an error
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as problem:  # damaged files raise anything: EOFError, RuntimeError, KeyError
        if "Unsupported global" in str(problem) or "Unsupported class" in str(problem):
            named = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(problem))
            raise ProgipError(
                f"{path} holds Python objects besides tensors{f' ({named[1]})' if named else ''}, "
                "which could run code, and is refused: where you trust it, load it yourself and "
                "save model.state_dict() (of a Lightning checkpoint: what is under 'state_dict')"
            ) from problem
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        if "weights_only" in reason:  # PyTorch advises to switch off safe loading
            reason = type(problem).__name__
        what = f"is damaged or no file of torch.save ({reason[:200]}); get it again"
        raise ProgipError(f"{path} {_what_it_is(path) or what}") from problem


def _opened(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The dictionary of tensors in it, through any wrappers."""
    found = content
    while isinstance(found, Mapping):
        if found and all(isinstance(value, torch.Tensor) for value in found.values()):
            return {str(key): value for key, value in found.items()}
        inner = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = found[inner]
    kind = type(content).__name__
    if isinstance(content, Mapping):
        kind = f"a dictionary with {', '.join(map(str, list(content)[:5])) or 'nothing'}"
    raise ProgipError(
        f"{path} holds no state dict but {kind}; save model.state_dict() or a dictionary with it "
        f"under one of {', '.join(WRAPPERS)}"
    )
