"""Rules of what moves and gathers pixels: pools, slices, padding, concatenation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from progip.engine.incremental.frames import Frame
from progip.engine.incremental.graph import Layout, Ref, aten
from progip.engine.incremental.window_geometry import Axis, Inexact, Rule, filled, only, pair

LOWEST = float("-inf")


def _pool_axes(kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> list[Axis]:
    stride = stride or kernel
    return [
        Axis(d * (k - 1) + 1, s, p)
        for k, s, p, d in zip(
            pair(kernel), pair(stride), pair(padding), pair(dilation), strict=True
        )
    ]


def _max_pool(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    _, kernel, stride, padding, dilation, ceil = filled(args, None, [], [0, 0], [1, 1], False)
    source = only(given)
    if source is None:
        return None
    y, x = _pool_axes(kernel, stride, padding, dilation)
    height, width = source.shape[2:]
    shape = tuple(_pooled(size, axis, bool(ceil)) for size, axis in ((height, y), (width, x)))
    steps = [y.stride, x.stride]

    def function(values: list[Any], frame: Frame) -> Any:
        value, index = aten.max_pool2d_with_indices.default(
            values[0], kernel, steps, [0, 0], dilation
        )
        if bool((value == LOWEST).any()):
            raise Inexact  # of equal values the first wins, which could lie outside the image
        row = index.div(frame.w, rounding_mode="floor")
        column = index - row * frame.w
        first_y, first_x = (
            torch.from_numpy(start).view(-1, 1, 1, 1) for start in (frame.y, frame.x)
        )
        return value, (row + first_y) * width + column + first_x

    return Rule(function, shape, y, x, fill=LOWEST, checked=True)  # type: ignore[arg-type]


def _pooled(size: int, axis: Axis, ceil: bool) -> int:
    left = size + 2 * axis.padding - axis.extent
    made = (left + (axis.stride - 1 if ceil else 0)) // axis.stride + 1
    return made - (ceil and (made - 1) * axis.stride >= size + axis.padding)


def _max_pool_backward(
    args: Sequence[Any], layout: Any, given: Mapping[int, Layout]
) -> Rule | None:
    gradient, _like, kernel, stride, padding, dilation, _, index = args
    if not isinstance(index, Ref) or not isinstance(gradient, Ref) or layout is None:
        return None
    y, x = _pool_axes(kernel, stride, padding, dilation)
    width = layout.shape[3]
    steps = [y.stride, x.stride]
    order = list(dict.fromkeys((gradient.node, index.node)))
    channels = layout.shape[1]

    def function(values: list[Any], frame: Frame) -> Tensor:
        grad, where = values[order.index(gradient.node)], values[order.index(index.node)]
        h, w = y.read(frame.h), x.read(frame.w)
        first_y, first_x = (
            torch.from_numpy(start * axis.stride - axis.padding).view(-1, 1, 1, 1)
            for start, axis in ((frame.y, y), (frame.x, x))
        )
        row = where.div(width, rounding_mode="floor")
        local = (row - first_y) * w + (where - row * width) - first_x
        # outputs outside the image have no gradient, wherever it goes
        local = local.clamp_(0, h * w - 1)
        dummy = torch.empty((len(grad), channels, h, w), memory_format=torch.channels_last)
        return aten.max_pool2d_with_indices_backward.default(
            grad, dummy, kernel, steps, [0, 0], dilation, False, local
        )

    return Rule(function, layout.shape[2:], y, x, scatters=True, checked=True)


def _average_pool(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    _, kernel, stride, padding, ceil, count, divisor = filled(
        args, None, [], [0, 0], False, True, None
    )
    if any(pair(padding)) or ceil or layout is None or only(given) is None:
        return None
    y, x = _pool_axes(kernel, stride, padding)
    steps = [y.stride, x.stride]

    def function(values: list[Any], _: Frame) -> Tensor:
        return aten.avg_pool2d.default(values[0], kernel, steps, [0, 0], False, count, divisor)

    return Rule(function, layout.shape[2:], y, x, checked=True)


def _average_pool_backward(args: Sequence[Any], layout: Any, given: Any) -> Rule | None:
    _, _like, kernel, stride, padding, ceil, count, divisor = args
    if any(pair(padding)) or ceil or layout is None or only(given) is None:
        return None
    y, x = _pool_axes(kernel, stride, padding)
    steps = [y.stride, x.stride]

    def function(values: list[Any], frame: Frame) -> Tensor:
        grad = values[0]
        size = (*grad.shape[:2], y.read(frame.h), x.read(frame.w))
        dummy = torch.empty(size, memory_format=torch.channels_last)
        return aten.avg_pool2d_backward.default(
            grad, dummy, kernel, steps, [0, 0], False, count, divisor
        )

    return Rule(function, layout.shape[2:], y, x, scatters=True, checked=True)


def _concatenation(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    axis = args[1] if len(args) > 1 else 0
    if axis not in (1, -3) or layout is None or not all(isinstance(a, Ref) for a in args[0]):
        return None
    if any(entry.shape[2:] != layout.shape[2:] for entry in given.values()):
        return None
    nodes = [a.node for a in args[0]]
    places = list(dict.fromkeys(nodes))
    order = [places.index(node) for node in nodes]

    def function(values: list[Any], _: Frame) -> Tensor:
        return torch.cat([values[i] for i in order], 1)

    return Rule(function, layout.shape[2:])


def _slice(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    _, dim, start, end, step = filled(args, 0, None, None, 1)
    source = only(given)
    if source is None or layout is None or dim == 0:
        return None
    if dim == 1:
        return Rule(lambda v, _: aten.slice.Tensor(v[0], dim, start, end, step), layout.shape[2:])
    first = range(source.shape[dim])[slice(start, end, step)].start
    axis = Axis(1, step, -first)
    y, x = (axis, Axis()) if dim == 2 else (Axis(), axis)
    return Rule(lambda v, _: aten.slice.Tensor(v[0], dim, 0, None, step), layout.shape[2:], y, x)


def _slice_backward(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    _, sizes, dim, start, end, step = args
    if layout is None or dim == 0 or only(given) is None:
        return None

    def placed(value: Tensor, length: int, first: int, last: int) -> Tensor:
        size = list(value.shape)
        size[dim] = length
        return aten.slice_backward.default(value, size, dim, first, last, step)

    if dim == 1:
        return Rule(lambda v, _: placed(v[0], sizes[1], start, end), layout.shape[2:])
    first = range(sizes[dim])[slice(start, end, step)].start
    axis = Axis(1, step, -first)
    y, x = (axis, Axis()) if dim == 2 else (Axis(), axis)

    def function(values: list[Any], frame: Frame) -> Tensor:
        length = axis.read(frame.h if dim == 2 else frame.w)
        return placed(values[0], length, 0, length)

    return Rule(function, layout.shape[2:], y, x, scatters=True)


def _padding(args: Sequence[Any], layout: Any, given: Mapping[int, Layout]) -> Rule | None:
    _, amounts, value = filled(args, None, 0)
    if layout is None or len(amounts) > 6 or any(amounts[:4]):
        return None
    return Rule(lambda v, _: aten.constant_pad_nd.default(v[0], amounts, value), layout.shape[2:])


MAKERS: dict[Any, Callable[..., Rule | None]] = {
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.avg_pool2d.default: _average_pool,
    aten.avg_pool2d_backward.default: _average_pool_backward,
    aten.cat.default: _concatenation,
    aten.slice.Tensor: _slice,
    aten.slice_backward.default: _slice_backward,
    aten.constant_pad_nd.default: _padding,
}
