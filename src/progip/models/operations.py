"""Operations of several tensors as modules: in Keras they are layers, in PyTorch functions."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


class Operation(nn.Module):
    """A function as a module; subclasses have the name of the operation.

    Args:
        function: that is called, or the name of a tensor method.
    """

    def __init__(self, function: Callable[..., Any] | str) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.function, str):
            return getattr(args[0], self.function)(*args[1:], **kwargs)
        return self.function(*args, **kwargs)


class Add(Operation):
    """A sum."""


class Subtract(Operation):
    """A difference."""


class Multiply(Operation):
    """A product, element by element."""


class Divide(Operation):
    """A quotient, element by element."""


class Concatenate(Operation):
    """Tensors one after the other along an axis."""


class MatMul(Operation):
    """A product of matrices."""


class Softmax(Operation):
    """Softmax along an axis."""


class Attention(Operation):
    """Scaled dot-product attention."""


class Pad(Operation):
    """A tensor with a border."""


class Resize(Operation):
    """An image of another size."""


OPERATIONS: dict[Callable[..., Any] | str, type[Operation]] = {
    **dict.fromkeys((operator.add, torch.add, "add"), Add),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), Subtract),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), Multiply),
    **dict.fromkeys((operator.truediv, torch.div, "div"), Divide),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate, torch.hstack), Concatenate),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), MatMul),
    **dict.fromkeys((F.softmax, torch.softmax, "softmax"), Softmax),
    F.scaled_dot_product_attention: Attention,
    F.pad: Pad,
    F.interpolate: Resize,
}
#: what gives numbers, not tensors: sizes of images, and what is computed of them
_OF_SHAPES = ("size", "dim", "shape", "ndim", "numel", "len")


def operation_of(node: fx.Node, numbers: set[fx.Node]) -> nn.Module | None:
    """A module for the operation of a node; None where there is none, or none is needed.

    Args:
        numbers: the nodes so far that are numbers, not tensors; the node is added if it is one.
    """
    if node.op not in ("call_function", "call_method"):
        return None
    if _is_number(node, numbers):
        numbers.add(node)
        return None
    kind = OPERATIONS.get(node.target)
    return None if kind is None else kind(node.target)


def _is_number(node: fx.Node, numbers: set[fx.Node]) -> bool:
    """Whether a node computes with the sizes of tensors, not with tensors."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if name in _OF_SHAPES or (name == "getattr" and node.args[1] in _OF_SHAPES):
        return True
    inputs = node.all_input_nodes
    return bool(inputs) and numbers.issuperset(inputs)
