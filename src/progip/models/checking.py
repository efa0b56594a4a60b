"""What a network must be for a campaign: its layers readable, its rows a function of one image."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from progip.batch_axis import BatchAxis, Seen, batch_axes
from progip.errors import ProgipError

Call = tuple[str, int, int]  # layer, which call of it, which tensor of what it gives


def check_layers(network: nn.Module, owner: str) -> None:
    """Refuse layers that hooks cannot see into, or that have no weights yet.

    Args:
        owner: what to call the network in an error.

    Raises:
        ProgipError: naming the layer.
    """
    for name, module in network.named_modules():
        what = f"{owner}: layer '{name}' ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule):
            raise ProgipError(
                f"{what} is compiled by torch.jit, and no fault can be put into what it does "
                "inside; build the network from its Python modules"
            )
        if hasattr(module, "_orig_mod"):
            raise ProgipError(
                f"{what} is compiled by torch.compile, which drops the hooks that faults come by; "
                "give the module itself"
            )
        for key, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            if is_lazy(tensor):
                raise ProgipError(
                    f"{what} has no '{key}' yet: a lazy layer takes its size from the first input; "
                    "give it its sizes, or run the network on one image in Model.network()"
                )


def other_types(network: nn.Module) -> str:
    """The first layer whose floating-point parameters are not float32, as words; else empty."""
    for name, module in network.named_modules():
        for key, value in module.named_parameters(recurse=False):
            if value.is_floating_point() and value.dtype != torch.float32:
                kind = str(value.dtype).removeprefix("torch.")
                return f"layer '{name}' ({type(module).__name__}) has a {kind} {key}"
    return ""


@torch.no_grad()
def check_repeatable(network: nn.Module, owner: str, images: Tensor) -> None:
    """Refuse a network whose output for an image is more than a function of that image.

    It is executed twice on the same batch, and on one with the same images at other places among
    others. All bits must recur, for a campaign compares every run with a fault-free one.

    Args:
        owner: what to call the network in an error.
        images: (n, channels, height, width), n as in the campaign's batches.

    Raises:
        ProgipError: naming the first layer that differs.
    """
    if len(images) < 2:
        images = torch.cat([images, images.flip(-1) * 0.5])
    state = {name: value.clone() for name, value in network.named_buffers()}
    first, again = network(images.clone()), network(images.clone())
    if not _same(first, again):
        raise ProgipError(
            f"{owner} gives other outputs when it is executed again: "
            f"{_first_random(network, images)}. Every run is compared with a fault-free one, so "
            "evaluation mode must switch off whatever draws random numbers"
        )
    for name, value in network.named_buffers():
        if not _same(value, state[name]):
            raise ProgipError(
                f"{owner} changes its own '{name}' whenever it is executed; in evaluation mode "
                "a network must stay as it is"
            )
    others = _Others(images)
    mixed = network(others.images.clone())
    if not _same(others.expected(first), mixed[others.kept]):
        raise ProgipError(
            f"{owner} gives an image other outputs beside other images: "
            f"{_first_mixed(network, images, others)}. A fault in one image would reach the "
            "others; evaluation mode must compute every image by itself"
        )


class _Others:
    """The same images one place on, every second one replaced by another image."""

    def __init__(self, images: Tensor) -> None:
        place = torch.arange(len(images), device=images.device)
        self._came_from = torch.roll(place, 1)
        self.kept = place[place % 2 == 0]
        moved = images[self._came_from]
        replaced = (place % 2 == 1).view(-1, *[1] * (images.dim() - 1))
        self.images = torch.where(replaced, moved.flip(-1) * 0.5, moved)
        if images.is_contiguous(memory_format=torch.channels_last):
            self.images = self.images.contiguous(memory_format=torch.channels_last)

    def expected(self, rows: Tensor) -> Tensor:
        """Of rows for the original images: those that the kept ones must have."""
        return rows[self._came_from[self.kept]]


@dataclass
class _Recorder:
    """Runs a network and reports the output of every module, in the order they are finished."""

    network: nn.Module

    def run(self, images: Tensor, seen: Seen[Call]) -> None:
        counts: dict[str, int] = {}

        def finished(name: str, output: object) -> None:
            call = counts[name] = counts.get(name, -1) + 1
            for place, part in enumerate(tree_leaves(output)):  # attention gives a tuple
                if isinstance(part, Tensor):
                    seen((name, call, place), part)

        handles = [
            module.register_forward_hook(lambda m, a, o, name=name: finished(name, o))
            for name, module in self.network.named_modules()
        ]
        try:
            self.network(images.clone())
        finally:
            for handle in handles:
                handle.remove()

    def outputs(self, images: Tensor) -> dict[Call, Tensor]:
        found: dict[Call, Tensor] = {}
        self.run(images, lambda call, tensor: found.__setitem__(call, tensor.detach().clone()))
        return found


def _first_random(network: nn.Module, images: Tensor) -> str:
    recorder = _Recorder(network)
    first, again = recorder.outputs(images), recorder.outputs(images)
    previous = ""
    for call, value in first.items():
        if call not in again or not _same(value, again[call]):
            return _named(network, call[0], previous)
        previous = call[0]
    return "by chance; no layer differed when it was looked for"


def _first_mixed(network: nn.Module, images: Tensor, others: _Others) -> str:
    recorder = _Recorder(network)
    axes = batch_axes(recorder.run, images)
    first, mixed = recorder.outputs(images), recorder.outputs(others.images)
    previous = ""
    for call, value in first.items():
        axis, found = axes.get(call), mixed.get(call)
        if isinstance(axis, BatchAxis) and found is not None and found.shape == value.shape:
            expected, rows = others.expected(axis.rows(value)), axis.rows(found)[others.kept]
            if not _same(expected, rows):
                return f"{_named(network, call[0], previous)}, by {_size(expected, rows)}"
        elif axis is not None:
            return _named(network, call[0], previous)
        previous = call[0]
    return "by rounding in what no layer gives; another batch_size may help"


def _named(network: nn.Module, name: str, previous: str) -> str:
    module = network.get_submodule(name)
    kind = type(module).__name__
    after = f" after layer '{previous}'" if previous else ""
    if next(module.children(), None) is None:
        mode = ", which is in training mode although eval() was called," if module.training else ""
        return f"layer '{name}' ({kind}){mode} is the first that differs"
    where = f"in the forward of layer '{name}' ({kind})" if name else f"in the forward of {kind}"
    return f"the first difference arises {where}{after}"


def _size(expected: Tensor, found: Tensor) -> str:
    apart = float((expected.double() - found.double()).abs().nan_to_num(torch.inf).max())
    scale = float(expected.double().abs().nan_to_num(0.0).max())
    if apart <= 1e-5 * scale:
        return f"rounding alone (at most {apart:.2g}); another batch_size or threads=1 may help"
    return f"up to {apart:.2g}"


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
