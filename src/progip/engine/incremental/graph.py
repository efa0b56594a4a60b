"""The traced detector as a list of operations, and where a batch's rows lie in each value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from progip.batch_axis import BatchAxis

aten = torch.ops.aten

#: arguments that an operation reads the shape of, not the values.
VALUE_FREE: dict[Any, tuple[int, ...]] = {
    aten.avg_pool2d_backward.default: (1,),
    aten._adaptive_avg_pool2d_backward.default: (1,),
    aten.max_pool2d_with_indices_backward.default: (1,),
    aten.zeros_like.default: (0,),
    aten.ones_like.default: (0,),
    aten.full_like.default: (0,),
    aten.empty_like.default: (0,),
    aten.new_zeros.default: (0,),
    aten.new_ones.default: (0,),
    aten.new_full.default: (0,),
    aten.new_empty.default: (0,),
    aten.new_empty_strided.default: (0,),
}


class NotTraceable(Exception):
    """The network cannot be executed incrementally; the message says why, in one sentence."""


@dataclass(frozen=True)
class Ref:
    """Stands in an argument list for the value of an earlier node."""

    node: int


@dataclass(frozen=True)
class Layout:
    """How the values of a node lie in memory, and where the rows of the batch are among them."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    axis: BatchAxis

    def rows(self, tensor: Tensor) -> Tensor:
        """The same memory with the batch as an axis of its own, in front."""
        return self.axis.rows(tensor)

    def empty(self, device: torch.device) -> Tensor:
        """A batch of unset values with the strides that tracing saw."""
        if self._dense:
            return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)
        return torch.empty(self.shape, dtype=self.dtype, device=device)

    @cached_property
    def _dense(self) -> bool:
        """Whether the elements fill one span of memory, each at an address of its own."""
        return sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1 == (
            math.prod(self.shape)
        )

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row, 0 where a row is not one span of memory."""
        group = self.axis.group
        inner = group * math.prod(self.shape[1:])
        if self.axis != BatchAxis(group=group) or not self._dense:
            return 0
        if self.stride[0] * group != inner:
            return 0
        return inner * self.dtype.itemsize


@dataclass
class Node:
    """One operation.

    Attributes:
        target: what to call; None for the images and for constants.
        args, kwargs: its arguments, with ``Ref`` in place of values of other nodes.
        inputs: the nodes among them, without those whose values do not matter.
        layout: where the rows lie; None for a tuple, which only ``getitem`` nodes read.
        site: number of the mark this node is, -1 for none.
        replaces: the operation that ``target`` is a cheaper form of; None where it is itself.
    """

    target: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    layout: Layout | None = None
    site: int = -1
    replaces: Callable[..., Any] | None = None


def map_refs(value: Any, replace: Callable[[int], Any]) -> Any:
    """Replace every ``Ref`` in nested arguments."""
    if isinstance(value, Ref):
        return replace(value.node)
    if isinstance(value, list | tuple):
        return type(value)(map_refs(v, replace) for v in value)
    return value


def refs(value: Any) -> list[int]:
    """The nodes in nested arguments, in order."""
    if isinstance(value, Ref):
        return [value.node]
    if isinstance(value, list | tuple):
        return [node for v in value for node in refs(v)]
    return []


def value_free(target: Any, args: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the arguments whose values do not matter."""
    if target is aten.convolution_backward.default and list(args[-1]) == [True, False, False]:
        return (1,)
    if (
        target is aten.native_batch_norm_backward.default
        and not args[7]
        and list(args[9]) == [True, False, False]
    ):
        return (1, 5, 6)
    return VALUE_FREE.get(target, ())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal shape and bits; two NaNs of the same bits are equal, 0.0 and -0.0 are not."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_floating_point():
        kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        a, b = a.contiguous().view(kind), b.contiguous().view(kind)
    return torch.equal(a, b)
