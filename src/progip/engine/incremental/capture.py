"""A detector's execution as one graph of PyTorch's operations."""

import copy

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from progip.engine.corrected import CorrectedPipeline
from progip.engine.incremental.graph import NotTraceable
from progip.engine.incremental.markers import SITE, Markers, marked
from progip.engine.pipeline import Pipeline
from progip.engine.sites import SiteKey
from progip.models.calls import Call
from progip.ood_methods.base import EnterPass, no_pass
from progip.probes import Observation

Masks = dict[tuple[str, Call], Tensor]


def observed(
    pipeline: Pipeline, images: Tensor, enter: EnterPass = no_pass
) -> tuple[Observation, Masks]:
    """What an execution shows, with what was corrected in every forward pass."""
    if not isinstance(pipeline, CorrectedPipeline):
        return pipeline(images, enter), {}
    watching = copy.copy(pipeline)
    watching.watched = pipeline.method.passes
    return watching(images, enter), watching.masks


def tensors(seen: Observation) -> list[Tensor]:
    """An observation in the order of ``Traced.outputs``."""
    excess = (
        column
        for columns in (seen.excess_first, seen.excess_second)
        for column in (columns.unbind(1) if isinstance(columns, Tensor) else columns)
    )
    corrections = (t for t in (seen.flagged, seen.corrected) if t is not None)
    measured = seen.measured.values()
    return [seen.logits, seen.grad_max, seen.score, *measured, *excess, *corrections]


def captured(
    pipeline: Pipeline, images: Tensor
) -> tuple[fx.Graph, list[SiteKey], list[tuple[str, Call]]]:
    """The graph, what its marks stand for, and of what corrections its last outputs are."""
    markers = Markers()
    within = marked(pipeline, images)
    corrections: list[tuple[str, Call]] = []

    def function(batch: Tensor) -> list[Tensor]:
        seen, masks = observed(within, batch, markers.enter)
        corrections[:] = masks
        return [*tensors(seen), *masks.values()]

    try:
        with markers.on(pipeline.network):
            module = make_fx(function, tracing_mode="real", _allow_non_fake_inputs=True)(images)
        if any(mutates(node) for node in module.graph.nodes):
            module = make_fx(
                torch.func.functionalize(module, remove="mutations"), tracing_mode="real"
            )(images)
    except Exception as error:  # whatever a network does that tracing cannot follow
        reason = str(error).splitlines()[0] if str(error) else ""
        raise NotTraceable(f"tracing failed: {type(error).__name__}: {reason}") from error
    _drop_dead(module.graph)
    return module.graph, markers.keys, corrections


def mutates(node: fx.Node) -> bool:
    """Whether an operation writes into one of its arguments."""
    return (
        node.op == "call_function"
        and getattr(node.target, "_schema", None) is not None
        and (
            node.target._schema.is_mutable  # type: ignore[union-attr]
        )
    )


def _drop_dead(graph: fx.Graph) -> None:
    """Remove what no output needs; marks stay, since a fault there must fire too."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr") and node.target is not SITE:
            graph.erase_node(node)
