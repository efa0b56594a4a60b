"""Which multiply-accumulate modules feed which activation: the layers of a network."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from progip.models.calls import Call
from progip.protections.placement import ACTIVATIONS

MACS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """One layer: multiply-accumulate (MAC) modules and the output y they lead to.

    Attributes:
        output: the call whose output is y: an activation, or a MAC module that reaches the next
            one without an activation between.
        macs: the calls of MAC modules that reach it without another activation or MAC between;
            several in residual and dense blocks.
        axis: of the neurons in y, negative: channels of a convolution, features of a linear layer.
    """

    output: Call
    macs: tuple[Call, ...]
    axis: int


class _Sources(TorchFunctionMode):
    """By tensor: the last activations and MAC modules its values came through."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, frozenset[Call]]] = {}  # keeps ids taken

    def of(self, values: Any) -> frozenset[Call]:
        leaves = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        return frozenset().union(*(self._known[id(t)][1] for t in leaves if id(t) in self._known))

    def set(self, tensor: Tensor, sources: frozenset[Call]) -> None:
        self._known[id(tensor)] = (tensor, sources)

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        sources = self.of((args, kwargs))
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.set(leaf, sources)
        return result


def find_layers(network: nn.Module, images: Tensor) -> list[Layer]:
    """All layers but the last, in the order of execution.

    The last layer is what reaches the logits without another MAC module behind it. Found by
    watching one forward pass, so activations and MACs must be modules.

    Args:
        images: (B, channels, height, width), B >= 1.
    """
    counts: dict[str, int] = {}
    modules: dict[Call, nn.Module] = {}  # of MACs and activations, as they are executed
    dimensions: dict[Call, int] = {}
    given: dict[Call, frozenset[Call]] = {}
    sources = _Sources()

    def hook(module: nn.Module, arguments: Any, output: Any, name: str) -> None:
        call = (name, counts.get(name, 0))
        counts[name] = call[1] + 1
        if isinstance(output, Tensor) and output.dim() > 1:
            modules[call], dimensions[call] = module, output.dim()
            given[call] = sources.of(arguments)
            sources.set(output, frozenset([call]))

    with ExitStack() as stack, torch.no_grad(), sources:
        for name, module in network.named_modules():
            if isinstance(module, (*MACS, *ACTIVATIONS)):
                handle = module.register_forward_hook(
                    lambda m, a, k, o, name=name: hook(m, (a, k), o, name), with_kwargs=True
                )
                stack.callback(handle.remove)
        last = sources.of(network(images))
    macs = {call for call, module in modules.items() if isinstance(module, MACS)}
    bare = {call for reader in macs for call in given[reader] & macs}
    layers = []
    for call in modules:
        if call in last or (call in macs and call not in bare):
            continue
        feeding = (call,) if call in macs else tuple(m for m in modules if m in given[call] & macs)
        linear = feeding and all(isinstance(modules[m], nn.Linear) for m in feeding)
        layers.append(Layer(call, feeding, -1 if linear else 1 - dimensions[call]))
    return layers
