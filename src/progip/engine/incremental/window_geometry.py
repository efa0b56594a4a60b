"""Which part of an operation's output a window of its input reaches, and what that part reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from progip.batch_axis import IMAGES_FIRST
from progip.engine.incremental.frames import Frame, Place
from progip.engine.incremental.graph import Layout


@dataclass(frozen=True)
class Axis:
    """How an output coordinate o reads inputs ``o * stride - padding + j``, j below ``extent``.

    With ``scatters`` it is the other way round: an input i is written to
    ``i * stride - padding + j``.
    """

    extent: int = 1
    stride: int = 1
    padding: int = 0

    def reached(self, size: int) -> int:
        """How many outputs so many adjacent inputs reach at most."""
        return (size + self.extent - 2) // self.stride + 1

    def read(self, size: int) -> int:
        """How many inputs so many adjacent outputs read."""
        return (size - 1) * self.stride + self.extent


class Inexact(Exception):
    """These values cannot be computed in a window."""


@dataclass
class Rule:
    """How an operation is executed in windows.

    Attributes:
        function: from the inputs' values in a frame, and that frame, to the value there.
        y, x: along each axis, what an output reads; None for elementwise operations.
        shape: height and width of the output.
        scatters: the axes say where inputs are written, instead of what outputs read.
        fill: what inputs are outside the image.
        kept: of the padding, what the function leaves off as the whole operation does; kernels for
            strides sum in another order otherwise.
        checked: bits may depend on the shape of a kernel, so each shape is tried out first.
        measures: the operation is a range check, with these limits.
    """

    function: Callable[[list[Any], Frame], Any]
    shape: tuple[int, int]
    y: Axis | None = None
    x: Axis | None = None
    scatters: bool = False
    fill: float = 0.0
    kept: tuple[int, int] | None = None
    checked: bool = False
    measures: tuple[Tensor, Tensor, Tensor] | None = None

    def output(self, frame: Frame) -> Place | None:
        """Where a window's change can be after the operation; None where that is everywhere."""
        assert self.y is not None
        assert self.x is not None
        ends = []
        for axis, start, size, whole in (
            (self.y, frame.y, frame.h, self.shape[0]),
            (self.x, frame.x, frame.w, self.shape[1]),
        ):
            if self.scatters:
                length = axis.read(size)
                first = start * axis.stride - axis.padding
            else:
                length = axis.reached(size)
                first = -((axis.extent - 1 - axis.padding - start) // axis.stride)
            if length > whole:
                return None
            ends.append((first.clip(0, whole - length), length))
        (y, h), (x, w) = ends
        return Place(y, x, h, w)

    def inputs(self, place: Place) -> Place:
        """The inputs that a window of the output is computed from; may leave the image."""
        assert self.y is not None
        assert self.x is not None
        ends = []
        for axis, start, size in ((self.y, place.y, place.h), (self.x, place.x, place.w)):
            if self.scatters:
                first = -((axis.extent - 1 - axis.padding - start) // axis.stride)
                length = (size + axis.extent - 2) // axis.stride + 1
                more = self.kept is not None  # so that what is left off is not needed
                ends.append((first - more, length + 2 * more))
            else:
                ends.append((start * axis.stride - axis.padding, axis.read(size)))
        (y, h), (x, w) = ends
        return Place(y, x, h, w)


def spatial(layout: Layout | None) -> bool:
    """Whether a value is images: (B, channels, height, width)."""
    return layout is not None and len(layout.shape) == 4 and layout.axis == IMAGES_FIRST


def pair(value: Any) -> tuple[int, int]:
    """A setting for both axes, given once or twice."""
    return (value[0], value[-1])


def only(given: Mapping[int, Layout]) -> Layout | None:
    """The layout of the only input; None where there are several."""
    return next(iter(given.values())) if len(given) == 1 else None


def filled(args: Sequence[Any], *defaults: Any) -> list[Any]:
    """Arguments with what was left out at the end; the first always is there."""
    return [*args, *defaults[len(args) - 1 :]]
