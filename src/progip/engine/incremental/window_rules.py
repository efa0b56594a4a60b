"""What single operations do with windows: which part of the output a part of the input reaches."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from progip.engine.incremental.frames import Frame
from progip.engine.incremental.graph import Layout, aten
from progip.engine.incremental.markers import EXCESS, SITE
from progip.engine.incremental.operations import BATCH_NORM, SAME
from progip.engine.incremental.rewrites import ChannelScale, gated, positive
from progip.engine.incremental.window_geometry import Axis, Rule, only, pair, spatial
from progip.engine.incremental.window_moves import MAKERS

#: one rounding at most for each element, so their bits know nothing of the shape.
ELEMENTWISE = {
    aten.relu.default, aten.hardtanh.default, aten.hardtanh_backward.default, aten.clamp.default,
    aten.clamp_min.default, aten.threshold_backward.default, aten.add.Tensor, aten.sub.Tensor,
    aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.abs.default, aten.sign.default,
    aten.ge.Scalar, aten.gt.Scalar, aten.le.Scalar, aten.lt.Scalar, aten._to_copy.default,
    SITE, gated, positive, *SAME,
}  # fmt: skip


def rule_of(
    target: Any,
    args: Sequence[Any],
    function: Callable[[list[Any]], Any],
    layout: Layout | None,
    given: Mapping[int, Layout],
) -> Rule | None:
    """The rule of an operation; None where its runs are to be executed whole.

    Args:
        args: with ``Ref`` in place of values of other nodes.
        function: of the whole operation.
        layout: of its value; None for a tuple.
        given: layouts of its inputs, none for tuples.
    """
    if target is EXCESS:
        return _range_check(args, given)
    if layout is not None and not spatial(layout):
        return None
    if not all(spatial(entry) for entry in given.values()):
        return None
    if target is operator.getitem:
        return None if layout is None else Rule(lambda v, _: function(v), _size(layout))
    if target in BATCH_NORM or target in ELEMENTWISE or isinstance(target, ChannelScale):
        return _elementwise(target, args, function, given)
    maker = _MAKERS.get(target)
    return maker(args, layout, given) if maker is not None else None


def _size(layout: Layout) -> tuple[int, int]:
    height, width = layout.shape[2:]
    return height, width


def _elementwise(
    target: Any, args: Sequence[Any], function: Any, given: Mapping[int, Layout]
) -> Rule | None:
    shapes = {entry.shape[2:] for entry in given.values()}
    if len(shapes) != 1:
        return None
    if target in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
        for value in args:
            if isinstance(value, Tensor) and any(n != 1 for n in value.shape[-2:]):
                return None
    (shape,) = shapes
    return Rule(
        lambda v, _: function(v),
        shape,  # type: ignore[arg-type]
        checked=target in BATCH_NORM,
    )


def _convolution(args: Sequence[Any], layout: Layout | None, given: Any) -> Rule | None:
    _, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed or not isinstance(weight, Tensor) or only(given) is None or layout is None:
        return None
    y, x = (
        Axis(d * (k - 1) + 1, s, p)
        for k, s, p, d in zip(
            weight.shape[2:], pair(stride), pair(padding), pair(dilation), strict=True
        )
    )

    def function(values: list[Any], _: Frame) -> Tensor:
        return aten.convolution.default(
            values[0], weight, bias, stride, [0, 0], dilation, False, [0, 0], groups
        )

    return Rule(function, layout.shape[2:], y, x, checked=True)  # type: ignore[arg-type]


def _convolution_backward(args: Sequence[Any], _: Any, given: Any) -> Rule | None:
    """At stride 1 a forward convolution with turned weights, else the operator on a part."""
    _, like, weight, _, stride, padding, dilation, transposed, _, groups, mask = args
    known = isinstance(weight, Tensor) and isinstance(like, Tensor)
    if transposed or not known or list(mask) != [True, False, False] or only(given) is None:
        return None
    shape = tuple(like.shape[2:])
    sizes = list(zip(weight.shape[2:], pair(stride), pair(padding), pair(dilation), strict=True))
    if pair(stride) == (1, 1):
        y, x = (Axis(d * (k - 1) + 1, 1, d * (k - 1) - p) for k, _, p, d in sizes)
        out, each, *kernel = weight.shape
        parts = weight.reshape(groups, out // groups, each, *kernel).transpose(1, 2)
        turned = parts.reshape(groups * each, out // groups, *kernel).flip(2, 3)
        turned = turned.contiguous(memory_format=torch.channels_last)

        def function(values: list[Any], _: Frame) -> Any:
            made = aten.convolution.default(
                values[0], turned, None, [1, 1], [0, 0], dilation, False, [0, 0], groups
            )
            return made, None, None

        return Rule(function, shape, y, x, checked=True)
    y, x = (Axis(d * (k - 1) + 1, s, p) for k, s, p, d in sizes)

    rest = [
        whole + 2 * p - (d * (k - 1) + 1) - (size - 1) * s
        for whole, size, (k, s, p, d) in zip(
            shape, next(iter(given.values())).shape[2:], sizes, strict=True
        )
    ]

    def scattered(values: list[Any], frame: Frame) -> Any:
        gradient = values[0]
        size = [
            axis.read(length) - 2 * axis.padding + more
            for axis, length, more in zip((y, x), (frame.h, frame.w), rest, strict=True)
        ]
        dummy = torch.empty(
            (len(gradient), like.shape[1], *size), memory_format=torch.channels_last
        ).zero_()
        return aten.convolution_backward.default(
            gradient, dummy, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
        )

    kept = (y.padding, x.padding)
    return Rule(scattered, shape, y, x, scatters=True, kept=kept, checked=True)


def _range_check(args: Sequence[Any], given: Mapping[int, Layout]) -> Rule | None:
    source = only(given)
    if source is None or not spatial(source) or list(args[1]) != [0, 1, 1]:
        return None
    return Rule(lambda v, _: v[0], source.shape[2:], measures=tuple(args[2:5]))  # type: ignore[arg-type]


_MAKERS: dict[Any, Callable[..., Rule | None]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    **MAKERS,
}
