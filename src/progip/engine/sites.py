"""Which tensors of which modules a fault can hit in each pass: found by watching one execution."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from progip.fault_models.base import Site
from progip.ood_methods.base import OODMethod
from progip.records import PASSES


def find_sites(network: nn.Module, method: OODMethod, images: Tensor) -> dict[str, list[Site]]:
    """The sites of every pass, in order of execution, seen on one small batch.

    A site is a call of a module without children that takes and gives one float32 tensor. In the
    backward pass only modules whose backward computation runs are sites: Mahalanobis on the
    penultimate feature never differentiates through the head.

    Args:
        images: (B, channels, height, width) with B >= 2, so that a tensor's sample axis shows.
    """
    found: dict[str, list[Site]] = {name: [] for name in PASSES}
    counts: dict[str, int] = {}
    current = ""

    def enter(name: str) -> None:
        nonlocal current
        current = name
        counts.clear()

    def pre_hook(module: nn.Module, args: tuple[Any, ...], name: str) -> Any:
        if current != "first_forward" or not _is_site(args[0] if args else None, len(images)):
            return None
        if not args[0].requires_grad:
            return None
        view = args[0].view_as(args[0])
        call = counts.get(name, 0)
        shape = args[0]

        def on_gradient(_: Tensor) -> None:
            found["backward"].append(_site(name, call, module, shape, len(images), None))

        view.register_hook(on_gradient)
        return (view, *args[1:])

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any, name: str) -> None:
        if _is_site(output, len(images)) and current in ("first_forward", "second_forward"):
            call = counts.get(name, 0)
            counts[name] = call + 1
            found[current].append(_site(name, call, module, output, len(images), output))

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if next(module.children(), None) is None:
                stack.callback(
                    module.register_forward_pre_hook(
                        lambda m, a, name=name: pre_hook(m, a, name)
                    ).remove
                )
                stack.callback(
                    module.register_forward_hook(
                        lambda m, a, o, name=name: hook(m, a, o, name)
                    ).remove
                )
        method.detect(network, images, enter)
    macs = {site.key: site.macs for site in found["first_forward"]}
    found["backward"] = [
        Site(s.layer, s.call, s.kind, s.shape, s.neurons, macs.get(s.key, 0))
        for s in found["backward"]
    ]
    return found


def _is_site(value: Any, batch: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dtype == torch.float32
        and value.dim() > 0
        and value.shape[0] % batch == 0
    )


def _site(
    name: str, call: int, module: nn.Module, tensor: Tensor, batch: int, output: Tensor | None
) -> Site:
    groups = tensor.shape[0] // batch  # token networks merge windows into the batch axis
    shape = tuple(tensor.shape[1:]) if groups == 1 else (groups, *tensor.shape[1:])
    neurons = tensor.numel() // batch
    macs = 0
    if output is not None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            macs = neurons * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs = neurons * module.in_features
    return Site(name, call, type(module).__name__, shape, neurons, macs)
