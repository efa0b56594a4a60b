"""Where results that depend on content alone are kept, and what names them."""

import hashlib
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from progip import __version__
from progip.cache import cache_root
from progip.errors import ProgipError
from progip.storage.source_code import digests

PACKAGE = Path(__file__).parents[1]
#: what computes clean results; the rest of the package only plans, stores and reports
COMPUTING = (
    "datasets", "engine", "fault_models", "models", "number_formats", "ood_methods", "probes",
    "protections", "batch_axis.py", "campaign/training.py", "campaign/held_out.py",
)  # fmt: skip


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


def code_digest(components: Iterable[object], layers: Iterable[object] = ()) -> str:
    """Names the source that computes: of this package, and of classes from anywhere.

    An edited method or network must not meet what its former self has left in the cache. Arguments
    as of ``source_code.digests``.
    """
    found = {
        str(file.relative_to(PACKAGE)): hashlib.sha256(file.read_bytes()).hexdigest()
        for name in COMPUTING
        for file in ([PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py"))
    }
    found |= digests((thing for thing in components if thing is not None), layers)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


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
