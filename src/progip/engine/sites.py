"""Which tensors of which modules a fault can hit in each pass: found by watching executions."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from progip.batch_axis import BatchAxis, Seen, Undecided, batch_axes
from progip.fault_models.base import Site
from progip.fault_models.layers import kinds_of
from progip.models.calls import tensor_argument, with_tensor_argument
from progip.number_formats.base import NumberFormat
from progip.number_formats.emulated import held_in
from progip.number_formats.fp32 import FP32
from progip.ood_methods.base import OODMethod
from progip.passes import backward_of, is_backward, is_forward
from progip.records import PASSES

#: convolution and linear layers: what multiplies and accumulates
MAC_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear)
#: kinds of modules whose output nothing else can be a view of
FRESH = ("Conv1d", "Conv2d", "Conv3d", "Linear")
#: modules of PyTorch that only arrange other modules
_ARRANGING = ("container", "module", "transformer")

SiteKey = tuple[str, str, int]  # pass, layer, which call of it in the pass


@dataclass(frozen=True)
class LeftOut:
    """A convolution or linear layer that no fault can hit in a pass.

    Attributes:
        layer: name in ``named_modules()``.
        kind: its class name.
        reason: why not, as the end of a sentence that begins with the layer.
        macs: multiply-accumulates of its calls for one image; 0 where it was not called.
    """

    layer: str
    kind: str
    reason: str
    macs: int = 0


@dataclass(frozen=True)
class Survey:
    """What a fault can hit in one detector.

    Attributes:
        sites: of every pass, in the order of execution; those with a ``doubt`` cannot be hit.
        left_out: of every pass.
        macs: multiply-accumulates of one forward pass for one image, in layers and in functions.
    """

    sites: dict[str, list[Site]]
    left_out: dict[str, list[LeftOut]]
    macs: int

    def coverage(self, fault_pass: str, chosen: list[Site]) -> dict[str, Any]:
        """For the manifest: of how much of the network the rates of these sites speak."""
        # every parameter of a layer counts for all its calls
        one = {(s.layer, "" if s.parameter else s.call): s.macs for s in chosen}
        return {
            "macs": self.macs,
            "macs_hit": sum(one.values()),
            "not_hit": [vars(layer) for layer in self.left_out.get(fault_pass, [])],
        }


def hookable(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules whose own ``forward`` can make a tensor.

    Those without children, and layers of PyTorch that have children all the same (a subclass, a
    parametrised weight, an adapter).
    """
    return [
        (name, module)
        for name, module in network.named_modules()
        if next(module.children(), None) is None or _is_layer(module)
    ]


def _is_layer(module: nn.Module) -> bool:
    for base in type(module).__mro__:
        package, _, file = base.__module__.rpartition(".")
        if package == "torch.nn.modules" and file not in _ARRANGING:
            return base is not nn.MultiheadAttention
    return False


def find_sites(network: nn.Module, method: OODMethod, images: Tensor) -> dict[str, list[Site]]:
    """The sites of every pass that can be hit, in the order of execution: see ``survey``."""
    found = survey(network, method, images).sites
    return {name: [site for site in sites if not site.doubt] for name, sites in found.items()}


def survey(network: nn.Module, method: OODMethod, images: Tensor) -> Survey:
    """Find what a fault can hit, by running the detector on batches of different size and order.

    A site is a call of a module whose own ``forward`` makes one float32 tensor. In the backward
    pass only modules whose backward computation runs are sites: Mahalanobis on the penultimate
    feature never differentiates through the head.

    Args:
        method: fitted.
        images: (n, channels, height, width), see ``batch_axes``.
    """
    watcher = _Watcher(network, method)
    axes = batch_axes(watcher.run, images)
    passes = dict.fromkeys((*PASSES, *method.passes))
    sites: dict[str, list[Site]] = {name: [] for name in passes}
    for (fault_pass, layer, call), axis in axes.items():
        module, tensor = watcher.modules[layer], watcher.seen[fault_pass, layer, call]
        if tensor.dtype == FP32.dtype and axis is not None:
            macs = watcher.macs.get((layer, call), 0)
            what = "gradients" if is_backward(fault_pass) else "outputs"
            held = held_in(module, what, FP32)
            sites[fault_pass].append(_site(layer, call, module, tensor, axis, macs, held))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images[:1].repeat(2, *[1] * (images.dim() - 1)))
    hit = sum(site.macs for site in sites["first_forward"])
    macs = max(counter.get_total_flops() // 4, hit)  # of two images; a product and a sum each
    left_out = {n: _left_out(watcher, n, sites[n], FP32.dtype) for n in passes}
    return Survey(sites, left_out, macs)


@dataclass(frozen=True)
class _Tensor:
    """What is kept of a tensor that a call made, without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class _Watcher:
    """Runs a detector and reports every tensor at which a fault could hit.

    Attributes:
        seen: by pass, layer and call, in the last run.
        other: why a call is no site although it was made, in words.
        macs: of each call in the first forward pass, for one image.
    """

    def __init__(self, network: nn.Module, method: OODMethod) -> None:
        self.network, self.method = network, method
        self.modules = dict(hookable(network))
        self.seen: dict[SiteKey, _Tensor] = {}
        self.other: dict[tuple[str, str], str] = {}
        self.macs: dict[tuple[str, int], int] = {}
        self._counts: dict[str, int] = {}
        self._current = ""
        self._last: Any = None

    def run(self, images: Tensor, seen: Seen[SiteKey]) -> None:
        self._last = None

        def enter(name: str) -> None:
            self._current = name
            self._counts.clear()

        def before(module: nn.Module, args: Any, kwargs: Any, name: str) -> Any:
            given = tensor_argument(args, kwargs)
            back = backward_of(self._current)
            if not back or given is None or not given.requires_grad:
                return None
            view, key = given.view_as(given), (back, name, self._counts.get(name, 0))

            def on_gradient(gradient: Tensor) -> None:
                self.seen[key] = _Tensor(tuple(given.shape), gradient.dtype)
                seen(key, given)

            view.register_hook(on_gradient)
            return with_tensor_argument(args, kwargs, view)

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str) -> None:
            if not is_forward(self._current):
                return
            call = self._counts.get(name, 0)
            self._counts[name] = call + 1
            key, inside = (self._current, name, call), self._last
            self._last = output
            if not isinstance(output, Tensor):
                self.other[key[:2]] = f"gives a {type(output).__name__}, not one tensor"
            elif inside is output and next(module.children(), None) is not None:
                self.other[key[:2]] = "hands on what a layer inside it made"
            elif output.dim() > 0:
                self.seen[key] = _Tensor(tuple(output.shape), output.dtype)
                seen(key, output)
                if self._current == "first_forward":
                    given = tensor_argument(args, kwargs)
                    self.macs[name, call] = _macs(module, given, output) // len(images)

        with ExitStack() as stack:
            for name, module in self.modules.items():
                for handle in (
                    module.register_forward_pre_hook(
                        lambda m, a, k, name=name: before(m, a, k, name), with_kwargs=True
                    ),
                    module.register_forward_hook(
                        lambda m, a, k, o, name=name: after(m, a, k, o, name), with_kwargs=True
                    ),
                ):
                    stack.callback(handle.remove)
            self.method.detect(self.network, images, enter)


def _macs(module: nn.Module, given: Tensor | None, output: Tensor) -> int:
    """Multiply-accumulates of a call: output values times the weights that make one of them."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return 0 if given is None else given.numel() * _weights(module, module.out_channels)
    if isinstance(module, nn.modules.conv._ConvNd):
        return output.numel() * _weights(module, module.in_channels)
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, nn.Bilinear):
        return output.numel() * module.in1_features * module.in2_features
    return 0


def _weights(module: nn.modules.conv._ConvNd, channels: int) -> int:
    """Of one kernel, by its sizes: the weight itself may be computed anew when it is asked for."""
    return channels // module.groups * math.prod(module.kernel_size)


def _site(
    layer: str,
    call: int,
    module: nn.Module,
    tensor: _Tensor,
    axis: BatchAxis | Undecided,
    macs: int,
    code: NumberFormat,
) -> Site:
    kinds = kinds_of(module)
    if isinstance(axis, Undecided):
        return Site(layer, call, kinds[0], (), 0, macs, kinds, doubt=str(axis), format=code)
    shape = axis.row_shape(tensor.shape)
    neurons = math.prod(shape)
    fresh = kinds[0] in FRESH and getattr(nn, kinds[0]) in type(module).__mro__[:2]
    return Site(layer, call, kinds[0], shape, neurons, macs, kinds, axis, fresh=fresh, format=code)


def _left_out(
    watcher: _Watcher, fault_pass: str, sites: list[Site], dtype: torch.dtype
) -> list[LeftOut]:
    """The convolution and linear layers without a call that can be hit."""
    hit = {site.layer for site in sites}
    found = []
    for layer, module in watcher.modules.items():
        if isinstance(module, MAC_LAYERS) and layer not in hit:
            kind = kinds_of(module)[0]
            macs = sum(n for (name, _), n in watcher.macs.items() if name == layer)
            found.append(LeftOut(layer, kind, _reason(watcher, fault_pass, layer, dtype), macs))
    return found


def _reason(watcher: _Watcher, fault_pass: str, layer: str, dtype: torch.dtype) -> str:
    types = {
        t.dtype for (p, name, _), t in watcher.seen.items() if (p, name) == (fault_pass, layer)
    }
    if types - {dtype}:
        kind, wanted = (
            str(t).removeprefix("torch.") for t in (min(types - {dtype}, key=str), dtype)
        )
        return f"gives {kind}; only {wanted} can be hit"
    if types:
        return "gives the same tensor for every image"
    if is_backward(fault_pass):
        return "is not part of the backward pass"
    return watcher.other.get((fault_pass, layer), "is never called as a module in this pass")
