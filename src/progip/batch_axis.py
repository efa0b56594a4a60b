"""Where the images of a batch lie in a tensor, found with batches of other size and order."""

from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
#: given every tensor that a run computes, by a name of its own
Seen = Callable[[Key, Tensor], None]


class Undecided(Exception):
    """The images of a batch cannot be told apart in a tensor; the message says why."""


@dataclass(frozen=True)
class BatchAxis:
    """Axis ``dim`` of a tensor is ``outer`` x images x ``group``.

    In most tensors the images are axis 0. Transformers may put tokens first, (tokens, B, width);
    windows merge into the axis of the images behind them, (B * windows, ...), crops that are
    stacked in front of them, (crops * B, ...).
    """

    dim: int = 0
    outer: int = 1
    group: int = 1

    def rows(self, tensor: Tensor) -> Tensor:
        """The same memory with the images as an axis of its own, in front.

        Returns:
            (B, *``row_shape``); flattened, a row is what the tensor is in a batch of one.
        """
        if self.outer > 1 or self.group > 1:
            sizes = [n for n in (self.outer, -1, self.group) if n != 1]
            tensor = tensor.unflatten(self.dim, sizes)
        place = self.dim + (self.outer > 1)
        return tensor.movedim(place, 0) if place else tensor

    def row_shape(self, shape: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one image's part of a tensor of this shape."""
        split = [n for n in (self.outer, self.group) if n != 1]
        return (*shape[: self.dim], *split, *shape[self.dim + 1 :])


IMAGES_FIRST = BatchAxis()


def possible_axes(
    shape: tuple[int, ...], fewer_shape: tuple[int, ...], images: int, fewer: int
) -> list[BatchAxis]:
    """Every way in which the images may lie in a tensor, by its shapes at two batch sizes.

    Returns:
        the plainest one first; empty where the shape does not depend on the batch.

    Raises:
        Undecided: no single axis follows the number of images.
    """
    if len(shape) != len(fewer_shape):
        raise Undecided("changes its number of axes with the batch size")
    differing = [d for d, (a, b) in enumerate(zip(shape, fewer_shape, strict=True)) if a != b]
    if not differing:
        return []
    dim = differing[0]
    size = shape[dim] // images
    if len(differing) > 1 or (size * images, size * fewer) != (shape[dim], fewer_shape[dim]):
        raise Undecided("does not follow the number of images along one axis")
    outers = (1, *(n for n in range(size, 1, -1) if size % n == 0))
    return [BatchAxis(dim, outer, size // outer) for outer in outers]


def batch_axes(
    run: Callable[[Tensor, Seen[Key]], object], images: Tensor
) -> dict[Key, BatchAxis | Undecided | None]:
    """Where the images lie in each tensor that ``run(images, seen)`` tells ``seen`` of.

    Batches of three and of two images show the axis. Where several parts of an axis belong to one
    image, three images in another order show which.

    Args:
        images: (n, channels, height, width), the first three are used; where there are fewer, moved
            copies take their place.

    Returns:
        by key, in the order of execution; None for a tensor that does not depend on the batch.
    """
    three = _distinct(images)
    shapes, fewer = (
        _collected(run, batch, lambda t: tuple(t.shape)) for batch in (three, three[:2])
    )
    found: dict[Key, BatchAxis | Undecided | None] = {}
    several: dict[Key, list[BatchAxis]] = {}
    for key, shape in shapes.items():
        try:
            if key not in fewer:
                raise Undecided("is not computed at every batch size")
            axes = possible_axes(shape, fewer[key], len(three), 2)
        except Undecided as reason:
            found[key] = reason
            continue
        found[key] = axes[0] if axes else None
        if len(axes) > 1:
            several[key] = axes
    if several:
        moved = torch.tensor([2, 0, 1], device=images.device)
        values, turned = (
            _collected(run, batch, lambda t: t.detach().clone(), several)
            for batch in (three, three[moved])
        )
        for key, axes in several.items():
            found[key] = _matching(axes, values.get(key), turned.get(key), moved)
    return found


def _distinct(images: Tensor) -> Tensor:
    """Three images that differ, of pixel values that the images have."""
    missing = [images[:1].roll(n, -1) for n in range(1, 4 - len(images[:3]))]
    three = torch.cat([images[:3], *missing])
    last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return three.contiguous(memory_format=order)


def _collected(
    run: Callable[[Tensor, Seen[Key]], object],
    images: Tensor,
    of: Callable[[Tensor], Value],
    wanted: Container[Key] | None = None,
) -> dict[Key, Value]:
    found: dict[Key, Value] = {}

    def seen(key: Key, tensor: Tensor) -> None:
        if wanted is None or key in wanted:
            found[key] = of(tensor)

    run(images, seen)
    return found


def _matching(
    axes: list[BatchAxis], value: Tensor | None, turned: Tensor | None, moved: Tensor
) -> BatchAxis | Undecided:
    """The only axis under which the rows moved as the images did."""
    if value is None or turned is None or value.shape != turned.shape:
        return Undecided("differs between two executions")
    matching = [axis for axis in axes if _close(axis.rows(value)[moved], axis.rows(turned))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        return Undecided("has equal values for different images, which cannot be told apart")
    return Undecided("mixes the images of a batch")


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding: kernels may give a row other last bits at another position."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    size = float(a[torch.isfinite(a)].abs().amax()) if torch.isfinite(a).any() else 0.0
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * size, equal_nan=True)
