"""Where Ranger checks or restricts values: activations, and what directly follows them."""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progip.batch_axis import BatchAxis, Seen, Undecided, batch_axes
from progip.errors import ProgipError
from progip.models.calls import Call, tensor_argument, watch_calls
from progip.models.rewrite import GlobalAvgPool, Reshape

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
#: what may follow an activation without creating larger values, and is checked with its range.
FOLLOWERS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Flatten, nn.Unflatten,
    GlobalAvgPool, Reshape,
)  # fmt: skip
#: does nothing in evaluation mode: neither checked nor in the way of what follows.
PASS_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)


class _Produced(TorchFunctionMode):
    """Which activations a tensor holds values of; a concatenation holds those of all its parts."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, tuple[Call, ...]]] = {}  # keeps ids taken

    def by(self, tensor: Any) -> tuple[Call, ...]:
        """The activations, none where other operations came after them."""
        return self._known.get(id(tensor), (None, ()))[1]

    def set(self, tensor: Tensor, sources: tuple[Call, ...]) -> None:
        self._known[id(tensor)] = (tensor, sources)

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _CONCATENATIONS:
            parts = [self.by(part) for part in (args[0] if args else kwargs["tensors"])]
            if all(parts):
                self.set(result, tuple(dict.fromkeys(call for part in parts for call in part)))
        return result


def nothing_to_check(owner: str, network: nn.Module) -> ProgipError:
    """The error where no activation of a network is a module, so that nothing would be checked."""
    return ProgipError(
        f"{owner}: {type(network).__name__} has no activation that is a module, so nothing would "
        "be checked; write activations as modules (nn.ReLU) instead of functions, or let "
        "Model.prepared() return progip.models.rewrite.with_own_modules(network), which does that"
    )


def find_range_sites(network: nn.Module, images: Tensor) -> dict[Call, tuple[Call, ...]]:
    """The checked calls of one forward pass, each with the activations whose ranges it has.

    An activation has its own; a pool or reshape that directly follows one has the activation's;
    one that follows a concatenation of activations has those of all of them, of which the
    smallest lower and the largest upper bound hold (Chen, Li, Pattabiraman, DSN 2021, whose
    published code looks at the last two only).

    Found by watching which tensor objects modules hand to one another, so it holds for any
    network whose activations are modules. Functional activations are not seen.

    Args:
        images: (B, channels, height, width), B >= 1.
    """
    counts: dict[str, int] = {}
    sites: dict[Call, tuple[Call, ...]] = {}
    produced = _Produced()

    def hook(module: nn.Module, tensor: Tensor | None, output: Any, name: str) -> None:
        if not isinstance(output, Tensor) or output.dim() == 0:
            return
        given = produced.by(tensor)
        if isinstance(module, PASS_THROUGH) and given:
            produced.set(output, given)
            return
        if isinstance(module, (*ACTIVATIONS, *FOLLOWERS)):
            site = (name, counts.get(name, 0))
            counts[name] = site[1] + 1
            if isinstance(module, ACTIVATIONS):
                sites[site] = (site,)
            elif given:
                sites[site] = given
            if site in sites:
                produced.set(output, sites[site])

    with ExitStack() as stack, torch.no_grad(), produced:
        for name, module in network.named_modules():
            handle = module.register_forward_hook(
                lambda m, a, k, o, name=name: hook(m, tensor_argument(a, k), o, name),
                with_kwargs=True,
            )
            stack.callback(handle.remove)
        network(images)
    return sites


def images_in(
    network: nn.Module, calls: Collection[Call], images: Tensor
) -> dict[Call, BatchAxis | Undecided | None]:
    """Where the images of a batch lie in the outputs of these calls: see ``batch_axes``."""

    def run(batch: Tensor, seen: Seen[Call]) -> None:
        def hook(call: Call, _: Any, output: Tensor) -> None:
            if call in calls:
                seen(call, output)

        with watch_calls(network, {layer for layer, _ in calls}, hook), torch.no_grad():
            network(batch)

    return batch_axes(run, images)


def require_images_first(
    owner: str, network: nn.Module, calls: Collection[Call], images: Tensor
) -> None:
    """Raise ProgipError unless the images of a batch are axis 0 of the outputs of these calls.

    Several consecutive entries may belong to one image, as windows do.
    """
    for (layer, _), axis in images_in(network, calls, images).items():
        if not isinstance(axis, BatchAxis) or axis != BatchAxis(group=axis.group):
            found = f"are part of axis {axis.dim}" if isinstance(axis, BatchAxis) else "are not"
            raise ProgipError(
                f"protection '{owner}': in the output of layer '{layer}' the images of a batch "
                f"{found}, and it corrects only outputs whose first axis they are; put them first "
                "in the network (batch_first=True), or choose a protection that only watches"
            )


def extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each row of (n, ...), (n,) both; NaN where a value is NaN."""
    rest = tuple(range(1, max(rows.dim(), 2)))
    rows = rows if rows.dim() > 1 else rows.unsqueeze(1)
    return rows.amin(rest), rows.amax(rest)
