"""What each module of each pass computed for one run: how a fault spreads and where it ends."""

from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip import records
from progip.engine.pipeline import Observation, Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.ood_methods.base import EnterPass, no_pass

#: what a pass hands on: rows of the trace that stand for no module
HANDED_ON = {"first_forward": "logits", "backward": "gradient maximum", "second_forward": "score"}


class LayerDifference(NamedTuple):
    """One module's tensor in a faulty run against golden, in order of execution.

    Attributes:
        elements, differing: of one sample's tensor; a NaN differs from anything but a NaN.
        largest: largest absolute difference, infinite where one value is not finite.
    """

    fault_pass: str
    layer: str
    call: int
    elements: int
    differing: int
    largest: float


class TracingPipeline(Pipeline):
    """A pipeline that keeps, for the first image of the batch, what every leaf module computes.

    Outputs in forward passes, gradients of the input in the backward pass. Its hooks come after
    those of an executor, so they see what a fault has done.

    Args:
        views_of: each (layer, call) whose input an executor has given a view of its own.
    """

    def __init__(self, inner: Pipeline, views_of: set[tuple[str, int]]) -> None:
        super().__init__(inner.network, inner.method, inner.ranges)
        self.trace: dict[tuple[str, str, int], Tensor] = {}
        self._views_of = views_of
        self._batch = 0

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        self.trace.clear()
        self._batch = len(images)
        current, counts = "", dict[str, int]()

        def enter_pass(name: str) -> None:
            nonlocal current
            current = name
            counts.clear()
            enter(name)

        def before(args: tuple[Any, ...], name: str) -> Any:
            if current != "first_forward" or not args or not isinstance(args[0], Tensor):
                return None
            if not args[0].requires_grad:
                return None
            key = (name, counts.get(name, 0))
            view = args[0] if key in self._views_of else args[0].view_as(args[0])
            view.register_hook(lambda gradient: self._keep("backward", *key, gradient))
            return (view, *args[1:])

        def after(output: Any, name: str) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            if current in ("first_forward", "second_forward") and isinstance(output, Tensor):
                self._keep(current, name, call, output)

        with ExitStack() as stack:
            for name, module in self.network.named_modules():
                if next(module.children(), None) is None:
                    pre = module.register_forward_pre_hook(lambda m, a, name=name: before(a, name))
                    post = module.register_forward_hook(lambda m, a, o, name=name: after(o, name))
                    stack.callback(pre.remove)
                    stack.callback(post.remove)
            observation = super().__call__(images, enter_pass)
        self._keep("first_forward", HANDED_ON["first_forward"], 0, observation.logits)
        self._keep("backward", HANDED_ON["backward"], 0, observation.grad_max)
        self._keep("second_forward", HANDED_ON["second_forward"], 0, observation.score)
        return observation

    def _keep(self, fault_pass: str, layer: str, call: int, tensor: Tensor) -> None:
        groups = max(tensor.shape[0] // self._batch, 1)
        self.trace[fault_pass, layer, call] = tensor[:groups].detach().clone()


def trace_run(executor: ReferenceExecutor, plan: pa.Table) -> list[LayerDifference]:
    """How every module's tensor differs between a planned run (one row) and its golden run."""
    hits = executor.hits(plan)
    hit = {executor.sites[i].key for i in hits.site.tolist()}
    tracing = TracingPipeline(
        executor.pipeline, hit if executor.fault_pass == "backward" else set()
    )
    executor.on(tracing, lambda _: hits).run(plan)
    faulty = dict(tracing.trace)
    harmless = hits._replace(mask=np.zeros_like(hits.mask))
    executor.on(tracing, lambda _: harmless).run(plan)
    return [
        _difference(key, golden, faulty[key])
        for key, golden in sorted(
            tracing.trace.items(), key=lambda i: records.PASSES.index(i[0][0])
        )
    ]


def _difference(key: tuple[str, str, int], golden: Tensor, faulty: Tensor) -> LayerDifference:
    same = (golden == faulty) | (torch.isnan(golden) & torch.isnan(faulty))
    apart = (golden.double() - faulty.double()).abs()[~same]
    apart = torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf)
    largest = float(apart.max()) if apart.numel() else 0.0
    return LayerDifference(*key, golden.numel(), int((~same).sum()), largest)
