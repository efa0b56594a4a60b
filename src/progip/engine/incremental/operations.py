"""What is known of single operations of the graph, and how one is called."""

from collections.abc import Callable
from typing import Any

from progip.engine.incremental.graph import Ref, aten, map_refs, refs
from progip.number_formats.emulated import CONVERT

SAME = {
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
}
#: operations after which rows often equal golden ones.
CONTRACTING = {
    aten.relu.default,
    aten.clamp_min.default,
    aten.clamp.default,
    aten.hardtanh.default,
    aten.threshold_backward.default,
    aten.hardtanh_backward.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.ge.Scalar,
    aten.sign.default,
    aten.avg_pool2d.default,
    aten.mean.dim,
    CONVERT,  # small changes round to the same number
}
BATCH_NORM = {
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
}
#: operations that take most of the time.
PRODUCTS = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
}
FRESH = {aten.convolution.default, aten.addmm.default}


def function_of(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: tuple[int, ...]
) -> Callable[[list[Any]], Any]:
    """``values of inputs -> value``, with the arguments laid out beforehand."""
    slots = {node: k for k, node in enumerate(inputs)}
    flat = [(p, slots[a.node]) for p, a in enumerate(args) if isinstance(a, Ref)]
    nested = [p for p, a in enumerate(args) if not isinstance(a, Ref) and refs(a)]
    if not nested and not any(refs(v) for v in kwargs.values()):
        template = list(args)
        if len(flat) == 1:
            position, _ = flat[0]
            before, after = args[:position], args[position + 1 :]
            return lambda values: target(*before, values[0], *after, **kwargs)

        def call(values: list[Any]) -> Any:
            filled = template.copy()
            for p, slot in flat:
                filled[p] = values[slot]
            return target(*filled, **kwargs)

        return call
    return lambda values: target(
        *map_refs(args, lambda n: values[slots[n]]),
        **{k: map_refs(v, lambda n: values[slots[n]]) for k, v in kwargs.items()},
    )
