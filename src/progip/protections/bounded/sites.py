"""The ReLUs of a network that can be bounded: modules, and by name those that are functions."""

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progip.errors import ProgipError
from progip.models.calls import Call, watch_calls
from progip.protections.placement import require_images_first

RELUS = (nn.ReLU, nn.ReLU6)
_FUNCTIONS = (
    F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
)  # fmt: skip


def relu_calls(owner: str, network: nn.Module, images: Tensor) -> list[Call]:
    """Every call of a ReLU or ReLU6 module in a forward pass, in order.

    Args:
        images: (B, channels, height, width), B >= 2.

    Raises:
        ProgipError: there is none; a ReLU is called as a function, which no hook reaches; or in
            the output of one the images of a batch do not come first.
    """
    functional = functional_relus(network, images)
    if functional:
        named = f"layer '{functional[0]}'" if functional[0] else type(network).__name__
        raise ProgipError(
            f"protection '{owner}': {named} calls relu as a function, which cannot be given a "
            "bound; write it as a module (nn.ReLU), or use "
            "progip.models.rewrite.with_own_modules(network), which does that"
        )
    layers = {name for name, module in network.named_modules() if isinstance(module, RELUS)}
    found: list[Call] = []
    with watch_calls(network, layers, lambda call, _, output: found.append(call)), torch.no_grad():
        network(images)
    if not found:
        raise ProgipError(
            f"protection '{owner}': {type(network).__name__} has no nn.ReLU or nn.ReLU6, and only "
            "these can be bounded; choose a protection for other activations, as ranger_zero"
        )
    require_images_first(owner, network, found, images)
    return found


class _Functions(TorchFunctionMode):
    """Notes in which module, that is no ReLU itself, relu is called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[tuple[str, nn.Module]] = []
        self.found: dict[str, None] = {}

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FUNCTIONS and self.inside and not isinstance(self.inside[-1][1], RELUS):
            self.found[self.inside[-1][0]] = None
        return func(*args, **(kwargs or {}))


def functional_relus(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules that call relu or relu6 as a function, in the order of execution."""
    mode = _Functions()
    with ExitStack() as stack, torch.no_grad():
        for name, module in network.named_modules():

            def enter(module: nn.Module, _: Any, name: str = name) -> None:
                mode.inside.append((name, module))

            def leave(*_: Any) -> None:
                mode.inside.pop()

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        with mode:
            network(images)
    return list(mode.found)
