"""Where results that depend on content alone are kept, and what names them."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import torch

from progip import __version__
from progip.cache import cache_root
from progip.errors import ProgipError


def cache_folder(name: str) -> Path:
    """A folder of the cache, made if it is not there.

    Raises:
        ProgipError: it cannot be written.
    """
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProgipError(
            f"cannot write the cache folder {folder} ({error.strerror}); set PROGIP_CACHE to a "
            "folder you can write"
        ) from error
    return folder


def content_key(content: Any, images: torch.Tensor, batch_size: int) -> str:
    """Names what is computed from ``content`` (as JSON) on this machine.

    Args:
        images: any that the network gets: device and memory format decide its last bits, too.
    """
    text = json.dumps([content, _machine(images), batch_size], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _machine(images: torch.Tensor) -> dict[str, Any]:
    """Kernels, and so the last bits of results, depend on these."""
    device = images.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "progip": __version__,
        "torch": torch.__version__,
        "device": device.type,
        "name": name,
        "strides": list(images.stride()[1:]),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
