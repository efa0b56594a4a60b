"""What each module of each pass computed for one run: how a fault spreads and where it ends."""

from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.pipeline import Observation, Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import SiteKey, hookable
from progip.fault_models.base import Site
from progip.models.calls import tensor_argument, with_tensor_argument
from progip.ood_methods.base import EnterPass, no_pass
from progip.passes import backward_of, is_backward, is_forward, place_of

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
        sites: by pass; of the tensors of these calls the first image's part is kept.
    """

    def __init__(
        self, inner: Pipeline, views_of: set[tuple[str, int]], sites: dict[str, list[Site]]
    ) -> None:
        super().__init__(inner.network, inner.method, inner.ranges)
        self.trace: dict[SiteKey, Tensor] = {}
        self._views_of = views_of
        self._axes = {
            (name, *site.key): site.axis for name in sites for site in sites[name] if not site.doubt
        }

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        self.trace.clear()
        current, counts = "", dict[str, int]()

        def enter_pass(name: str) -> None:
            nonlocal current
            current = name
            counts.clear()
            enter(name)

        def before(args: Any, kwargs: Any, name: str) -> Any:
            given = tensor_argument(args, kwargs)
            back = backward_of(current)
            if not back or given is None or not given.requires_grad:
                return None
            key = (name, counts.get(name, 0))
            view = given if key in self._views_of else given.view_as(given)
            view.register_hook(lambda gradient: self._keep(back, *key, gradient))
            return with_tensor_argument(args, kwargs, view)

        def after(output: Any, name: str) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            if is_forward(current) and isinstance(output, Tensor):
                self._keep(current, name, call, output)

        with ExitStack() as stack:
            for name, module in hookable(self.network):
                pre = module.register_forward_pre_hook(
                    lambda m, a, k, name=name: before(a, k, name), with_kwargs=True
                )
                post = module.register_forward_hook(lambda m, a, o, name=name: after(o, name))
                stack.callback(pre.remove)
                stack.callback(post.remove)
            observation = super().__call__(images, enter_pass)
        handed_on = (observation.logits, observation.grad_max, observation.score)
        for (fault_pass, name), tensor in zip(HANDED_ON.items(), handed_on, strict=True):
            self.trace[fault_pass, name, 0] = tensor[:1].detach().clone()
        return observation

    def _keep(self, fault_pass: str, layer: str, call: int, tensor: Tensor) -> None:
        axis = self._axes.get((fault_pass, layer, call))
        if axis is not None:
            kept = axis.rows(tensor.detach())[:1]
            self.trace[fault_pass, layer, call] = kept.clone()


def trace_run(
    executor: ReferenceExecutor, plan: pa.Table, sites: dict[str, list[Site]]
) -> list[LayerDifference]:
    """How every module's tensor differs between a planned run (one row) and its golden run.

    Args:
        sites: of every pass: whose tensors are compared.
    """
    hits = executor.hits(plan)
    hit = {executor.sites[i].key for i in hits.site.tolist()}
    tracing = TracingPipeline(
        executor.pipeline, hit if is_backward(executor.fault_pass) else set(), sites
    )
    executor.on(tracing, lambda _: hits).run(plan)
    faulty = dict(tracing.trace)
    harmless = hits._replace(mask=np.zeros_like(hits.mask), clear=None)
    executor.on(tracing, lambda _: harmless).run(plan)
    return [
        _difference(key, golden, faulty[key])
        for key, golden in sorted(tracing.trace.items(), key=lambda i: place_of(i[0][0]))
    ]


def _difference(key: tuple[str, str, int], golden: Tensor, faulty: Tensor) -> LayerDifference:
    same = (golden == faulty) | (torch.isnan(golden) & torch.isnan(faulty))
    apart = (golden.double() - faulty.double()).abs()[~same]
    apart = torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf)
    largest = float(apart.max()) if apart.numel() else 0.0
    return LayerDifference(*key, golden.numel(), int((~same).sum()), largest)
