"""What goes to the device and what comes back: few, large, and without waiting where that can be.

On a GPU the host only queues work. Reading a value waits for all that is queued before it, so
comparisons are read as late as they can be, each for all packs of a step at once.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; to a GPU from pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Reads:
    """Counts what is read back from the device; tests bound it.

    Attributes:
        count: reads so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def now(self, tensor: Tensor) -> np.ndarray:
        """Wait for a value."""
        self.count += 1
        found: np.ndarray = tensor.cpu().numpy()
        return found

    def later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Ask for a value; the host goes on, and waits for it when the result is called."""
        self.count += 1
        if tensor.device.type != "cuda":
            return tensor.numpy
        held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        held.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def value() -> np.ndarray:
            done.synchronize()
            found: np.ndarray = held.numpy()
            return found

        return value


class Stopwatch:
    """Seconds of what is done between ``start`` and ``stop``; on a GPU by its own clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[object, object]] = []
        self._begun: object = None

    def start(self) -> None:
        self._begun = self._mark()

    def stop(self) -> None:
        self._spans.append((self._begun, self._mark()))

    @property
    def seconds(self) -> float:
        """Of all spans so far; waits for the device."""
        if self._device.type != "cuda":
            return sum(end - begin for begin, end in self._spans)  # type: ignore[operator]
        torch.cuda.synchronize(self._device)
        return sum(b.elapsed_time(e) for b, e in self._spans) / 1000  # type: ignore[attr-defined]

    def _mark(self) -> object:
        if self._device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
