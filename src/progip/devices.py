"""Where torch computes: names of devices, tried, and set up for numbers that can be compared."""

import torch

from progip.errors import ProgipError

AUTO = "auto"


def usable_device(device: torch.device | str) -> torch.device:
    """The device, tried.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``, which is CUDA where there is one.

    Raises:
        ProgipError: it is unknown or not there.
    """
    name = str(device)
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        called = "a GPU is called cuda" if name.startswith("gpu") else "not available here"
        raise ProgipError(
            f"device={device}: {called}; use device=auto, device=cpu or, on a GPU, cuda"
        ) from error
    return place


def exact_device(device: str) -> torch.device:
    """The same, on CUDA with IEEE float32 and deterministic kernels from now on."""
    place = usable_device(device)
    if place.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # a bit flip is one of IEEE float32
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # filling every new tensor finds reads of unset memory, and takes time
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return place


def gpu(device: str) -> str:
    """The name of the GPU that a device stands for; empty where it is none."""
    name = "cuda" if device == AUTO else device
    return name if name.startswith("cuda") and torch.cuda.is_available() else ""
