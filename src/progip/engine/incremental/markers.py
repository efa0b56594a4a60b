"""Operators that leave a mark in a traced graph: where a fault can hit, what is observed."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from progip.batch_axis import BatchAxis
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import Bounds, RangeChecks, RangeTable, extremes
from progip.engine.sites import SiteKey, hookable
from progip.models.calls import Call, tensor_argument, with_tensor_argument
from progip.passes import backward_of, is_forward

_LIBRARY = torch.library.Library("progip", "DEF")
_LIBRARY.define("site(Tensor tensor, int number) -> Tensor")
_LIBRARY.define(
    "excess(Tensor output, int[] axis, Tensor low, Tensor high, Tensor width) -> Tensor"
)


def excess(output: Tensor, axis: list[int], low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    """The range check of one call, which tracing would break into eight nodes."""
    return Bounds(low, high, width).excess(*extremes(BatchAxis(*axis).rows(output)))


_LIBRARY.impl("site", lambda tensor, number: tensor.clone(), "CompositeExplicitAutograd")
_LIBRARY.impl("excess", excess, "CompositeExplicitAutograd")
SITE = torch.ops.progip.site.default
EXCESS = torch.ops.progip.excess.default


class _MarkOutput(torch.autograd.Function):
    """Identity that leaves a site in the forward graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, number: int) -> Tensor:
        return SITE(tensor, number)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class _MarkGradient(torch.autograd.Function):
    """Identity that leaves a site in the backward graph, as a consumer of the tensor of its own."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, number: int) -> Tensor:
        ctx.number = number
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return SITE(gradients[0], ctx.number), None


class Markers:
    """Hooks that put a mark where the hooks of the reference executor can flip a bit.

    Attributes:
        keys: what each site number stands for; filled while the network runs.
    """

    def __init__(self) -> None:
        self.keys: list[SiteKey] = []
        self._counts: dict[str, int] = {}
        self._current = ""

    def enter(self, name: str) -> None:
        """The observer of passes to give to the pipeline."""
        self._current = name
        self._counts.clear()

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[None]:
        """Mark every float32 tensor that a module may make by itself, or get."""

        def markable(value: Any) -> bool:
            return isinstance(value, Tensor) and value.dtype == torch.float32 and value.dim() > 0

        def pre_hook(args: Any, kwargs: Any, name: str) -> Any:
            given = tensor_argument(args, kwargs)
            back = backward_of(self._current)
            if not back:
                return None
            call = self._counts.get(f"<{name}", 0)
            self._counts[f"<{name}"] = call + 1
            if given is None or not markable(given) or not given.requires_grad:
                return None
            marked = _MarkGradient.apply(given, self._number(back, name, call))
            return with_tensor_argument(args, kwargs, marked)

        def hook(output: Any, name: str) -> Any:
            if not is_forward(self._current):
                return None
            call = self._counts.get(name, 0)
            self._counts[name] = call + 1
            if not markable(output):
                return None
            return _MarkOutput.apply(output, self._number(self._current, name, call))

        with ExitStack() as stack:
            for name, module in hookable(network):
                for handle in (
                    module.register_forward_pre_hook(
                        lambda m, a, k, name=name: pre_hook(a, k, name), with_kwargs=True
                    ),
                    module.register_forward_hook(  # before corrections, as faults are
                        lambda m, a, o, name=name: hook(o, name), prepend=True
                    ),
                ):
                    stack.callback(handle.remove)
            yield

    def _number(self, fault_pass: str, name: str, call: int) -> int:
        self.keys.append((fault_pass, name, call))
        return len(self.keys) - 1


class _MarkedChecks(RangeChecks):
    """For tracing: a range check is one node, its excess a column of its own."""

    def __init__(self, ranges: RangeTable, device: torch.device) -> None:
        super().__init__(ranges)
        # tensors, because a GPU divides by a number in another way than by a tensor
        columns = (values.unbind() for values in ranges.bounds(device))
        self._limits = dict(zip(ranges.sites, zip(*columns, strict=True), strict=True))

    def measured(self, site: Call, output: Tensor) -> Any:
        return EXCESS(output, astuple(self._ranges.axis[site]), *self._limits[site])

    def wider(self, one: Any, other: Any) -> Any:
        return torch.maximum(one, other)  # NaN is the largest

    def excess(self, seen: dict[Call, Any], images: Tensor) -> Any:
        if not seen:
            return [images.new_full((len(images),), -1.0)] * len(self._ranges.sites)
        return [seen[site] for site in self._ranges.sites]


def marked(pipeline: Pipeline, images: Tensor) -> Pipeline:
    """The same pipeline for tracing, the range excesses of which are lists of columns."""
    pipeline.looked_at(images)  # found now, since it takes forward passes
    result = copy.copy(pipeline)
    result.checks = _MarkedChecks(pipeline.ranges, images.device)
    return result
