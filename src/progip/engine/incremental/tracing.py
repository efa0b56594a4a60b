"""Traces a detector through autograd into one graph, and proves that rows are independent."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from progip.batch_axis import IMAGES_FIRST, Undecided, possible_axes
from progip.engine.incremental.capture import captured, observed, tensors
from progip.engine.incremental.graph import (
    Layout,
    Node,
    NotTraceable,
    Ref,
    map_refs,
    refs,
    same_bits,
    value_free,
)
from progip.engine.incremental.markers import SITE
from progip.engine.incremental.rewrites import cheaper
from progip.engine.pipeline import Pipeline
from progip.engine.sites import SiteKey
from progip.models.calls import Call

__all__ = ["NotTraceable", "Traced"]


class Traced:
    """One detector as a flat graph; made once per network, method and ranges, shared by all cells.

    Args:
        pipeline: the detector.
        images: (B, channels, height, width) images, all different; every batch that is executed
            will have this shape.

    Attributes:
        nodes: the operations, in order of execution.
        constants: the values of those nodes that do not depend on the images.
        outputs: the nodes of logits, gradient maximum and score, of what probes measured, then the
            columns of the range excesses of the first and of the later forward passes; for a
            network with corrections then ``flagged`` and ``corrected``.
        corrections: the nodes of ``CorrectedPipeline.masks``, of every forward pass.
        measured: names of the probes that measured something, in the order of these nodes.
        sites: the node of every mark.
        dummies: arguments of which only the shape matters, by shape, stride and type.

    Raises:
        NotTraceable: control flow depends on values, the batch mixes, or kernels give a row other
            bits at another position of the batch.
    """

    def __init__(self, pipeline: Pipeline, images: Tensor) -> None:
        self._begin(pipeline, images)
        self._build(pipeline, images)

    @classmethod
    def empty(cls, pipeline: Pipeline, images: Tensor) -> "Traced":
        """A graph without nodes, to be filled with what was traced before."""
        traced = cls.__new__(cls)
        traced._begin(pipeline, images)
        return traced

    def _begin(self, pipeline: Pipeline, images: Tensor) -> None:
        self.pipeline = pipeline
        self.batch = len(images)
        if self.batch < 2:
            raise NotTraceable("a batch of one row uses other kernels than larger ones")
        self.device = images.device
        self.nodes: list[Node] = []
        self.constants: dict[int, Any] = {}
        self.sites: dict[SiteKey, int] = {}
        self.outputs: list[int] = []
        self.corrections: dict[tuple[str, Call], int] = {}
        self.measured: list[str] = []
        self.dummies: dict[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor] = {}

    def check(self, images: Tensor) -> None:
        """Raise NotTraceable where the graph computes other values than the detector."""
        values: dict[int, Any] = {0: images, **self.constants}
        kept = [*self.outputs, *self.corrections.values()]
        last = {n: number for number, node in enumerate(self.nodes) for n in _reads(node)}
        dies: dict[int, list[int]] = {}
        for n, number in last.items():
            dies.setdefault(number, []).append(n)
        with torch.no_grad():
            for number, node in enumerate(self.nodes):
                if number not in values:
                    assert node.target is not None
                    args = map_refs(node.args, values.__getitem__)
                    kwargs = {k: map_refs(v, values.__getitem__) for k, v in node.kwargs.items()}
                    values[number] = node.target(*args, **kwargs)
                for used in dies.get(number, []):
                    if used not in kept:
                        values.pop(used, None)
        self._check_outputs(self.pipeline, images, [values[n] for n in kept])

    def _build(self, pipeline: Pipeline, images: Tensor) -> None:
        """Number the nodes while running them on a batch, on its rows moved, and on fewer rows."""
        moved = torch.roll(torch.arange(self.batch, device=images.device), 1)
        fewer = 3 if self.batch != 3 else 4
        few = images[torch.arange(fewer, device=images.device) % self.batch]
        graph, keys, corrections = captured(pipeline, images)
        small, _, _ = captured(pipeline, few)
        if [n.target for n in graph.nodes if n.op == "call_function"] != [
            n.target for n in small.nodes if n.op == "call_function"
        ]:
            raise NotTraceable("its operations depend on the size of the batch")
        number: dict[fx.Node, int] = {}
        for (node, given, value), (_, _, turned), (_, _, less) in zip(
            _run(graph, images), _run(graph, images[moved]), _run(small, few), strict=True
        ):
            if node.op == "output":
                made_by: Any = node.args[0]
                outputs = [number[n] for n in made_by]
                first = len(outputs) - len(corrections)
                self.outputs = outputs[:first]
                self.corrections = dict(zip(corrections, outputs[first:], strict=True))
                self._check_outputs(pipeline, images, value)
                continue
            made = self._node(node, number)
            number[node] = len(self.nodes)
            self.nodes.append(made)
            if not made.inputs and node.op != "placeholder":
                self.constants[number[node]] = value
            elif isinstance(value, Tensor):
                made.layout = _layout(node, value, less, turned, moved, fewer)
                if made.layout is None:
                    self.constants[number[node]] = value
            other = cheaper(node.target, given) if made.inputs else None
            if other is not None and _same(other(*given), value):
                made.target, made.replaces = other, made.target
            if node.target is SITE:
                made.site = int(node.args[1])  # type: ignore[arg-type]
                self.sites[keys[made.site]] = number[node]

    def _node(self, node: fx.Node, number: dict[fx.Node, int]) -> Node:
        if node.op != "call_function":
            return Node(None, (), {}, ())
        to_ref: Any = lambda n: Ref(number[n])  # noqa: E731  # typed for arguments of a graph
        args: list[Any] = list(fx.node.map_arg(node.args, to_ref))
        kwargs: dict[str, Any] = dict(fx.node.map_arg(node.kwargs, to_ref))
        for position in value_free(node.target, args):
            if position < len(args) and isinstance(args[position], Ref):
                layout = self.nodes[args[position].node].layout
                if layout is not None:
                    args[position] = self.dummy(layout.shape, layout.stride, layout.dtype)
        inputs = [n for n in refs([*args, *kwargs.values()]) if n not in self.constants]
        return Node(node.target, tuple(args), kwargs, tuple(dict.fromkeys(inputs)))  # type: ignore[arg-type]

    def dummy(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The argument of this shape whose values do not matter; the same one each time."""
        key = (shape, stride, dtype)
        if key not in self.dummies:
            self.dummies[key] = Layout(*key, IMAGES_FIRST).empty(self.device).zero_()
        return self.dummies[key]

    def _check_outputs(self, pipeline: Pipeline, images: Tensor, value: Any) -> None:
        seen, masks = observed(pipeline, images)
        self.measured = list(seen.measured)
        expected = [*tensors(seen), *masks.values()]
        if not all(same_bits(a, b) for a, b in zip(expected, value, strict=True)):
            raise NotTraceable("the traced graph computes other values than the network")


def _reads(node: Node) -> list[int]:
    return refs([*node.args, *node.kwargs.values()])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return all(_same(x, y) for x, y in zip(a, b, strict=True) if x is not None)
    return isinstance(a, Tensor) and isinstance(b, Tensor) and same_bits(a, b)


def _run(graph: fx.Graph, images: Tensor) -> Iterator[tuple[fx.Node, tuple[Any, ...], Any]]:
    """Evaluate a graph: each node, its arguments, its value, which is kept until its last use."""
    values: dict[fx.Node, Any] = {}
    left = {node: len(node.users) for node in graph.nodes}
    for node in graph.nodes:
        args: tuple[Any, ...] = ()
        if node.op == "placeholder":
            value: Any = images
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(graph.owning_module)
        else:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():  # not around the loop: generators take turns
                value = args[0] if node.op == "output" else _call(node, args, kwargs)
        yield node, args, value
        values[node] = value
        for used in (node, *node.all_input_nodes):
            left[used] -= used is not node
            if left[used] == 0:
                values.pop(used, None)


def _call(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return node.target(*args, **kwargs)  # type: ignore[operator]  # of a call
    except Exception as error:  # the backward of an LSTM refuses what its forward gave
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotTraceable(f"'{node.name}' cannot be executed alone: {reason}") from error


def _layout(
    node: fx.Node, value: Tensor, less: Tensor, turned: Tensor, moved: Tensor, fewer: int
) -> Layout | None:
    """Where the batch lies in a value; None where the value is the same for every image.

    The axis is the one that differs at another batch size; how it is split follows from where the
    rows went when the images were ``moved``, which also proves that no row knows its position.
    """
    try:
        axes = possible_axes(tuple(value.shape), tuple(less.shape), len(moved), fewer)
    except Undecided as reason:
        raise NotTraceable(f"'{node.name}' {reason}") from reason
    if not axes:
        if not same_bits(value, turned):
            raise NotTraceable(f"'{node.name}' mixes the images of a batch")
        return None
    for axis in axes:
        if same_bits(axis.rows(value)[moved], axis.rows(turned)):
            return Layout(tuple(value.shape), tuple(value.stride()), value.dtype, axis)
    raise NotTraceable(f"'{node.name}' gives a row other bits at another position of the batch")
