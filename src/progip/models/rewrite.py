"""Gives every activation, pool and reshape of a foreign network a module of its own."""

import copy
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from progip.models.operations import operation_of


class Reshape(nn.Module):
    """``x.reshape(sizes)``; the sizes may depend on the input, so they come with each call."""

    def forward(self, x: torch.Tensor, *sizes: Any) -> torch.Tensor:
        return x.reshape(*sizes)


class GlobalAvgPool(nn.Module):
    """Mean over some dimensions, written ``x.mean([2, 3])`` where it was found."""

    def __init__(self, dim: int | list[int] | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.dim, self.keepdim)


def _activation(cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Makes the module from the function's arguments, which are the module's, but not in place."""

    def activation(*options: Any, inplace: bool = False, **named: Any) -> nn.Module:
        if options and isinstance(options[-1], bool):  # inplace, by position
            options = options[:-1]
        return cls(*options, **named)

    return activation


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    """The function takes its last two options in another order than the module."""
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


#: function, or name of a tensor method -> the module that does the same, from its other arguments
_MODULES: dict[Callable[..., Any] | str, Callable[..., nn.Module]] = {
    **dict.fromkeys(
        (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), _activation(nn.ReLU)
    ),
    F.relu6: _activation(nn.ReLU6),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _activation(nn.LeakyReLU)),
    **dict.fromkeys((F.elu, F.elu_), _activation(nn.ELU)),
    **dict.fromkeys((F.selu, F.selu_, torch.selu), _activation(nn.SELU)),
    **dict.fromkeys((F.celu, F.celu_, torch.celu), _activation(nn.CELU)),
    F.silu: _activation(nn.SiLU),
    F.mish: _activation(nn.Mish),
    F.hardswish: _activation(nn.Hardswish),
    F.hardsigmoid: _activation(nn.Hardsigmoid),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _activation(nn.Hardtanh)),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"), nn.Sigmoid),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh", "tanh_"), nn.Tanh),
    F.softplus: nn.Softplus,
    F.gelu: nn.GELU,
    F.avg_pool2d: nn.AvgPool2d,
    F.max_pool2d: _max_pool,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    torch.flatten: _flatten,
    "flatten": _flatten,
    "mean": GlobalAvgPool,
}
_ACTIVATIONS = [make for make in _MODULES.values() if make.__name__ == "activation"]
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)
_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul}


class _Tracer(fx.Tracer):
    """Enters every block, but no layer of torch, nor one of a class that inherits from it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = any(
            base.__module__.startswith("torch.nn.modules.") and base not in _CONTAINERS
            for base in type(m).__mro__
        )
        return layer or super().is_leaf_module(m, module_qualified_name)


def with_own_modules(
    network: nn.Module, first: dict[str, nn.Module] | None = None, operations: bool = False
) -> nn.Module:
    """The same network as a ``torch.fx.GraphModule`` in which hooks see everything.

    Functions (``F.relu``, ``torch.flatten``, ``x.mean([2, 3])``, ``x.view(...)``, ...) become
    modules named after the block they stand in; a module without weights that is called at
    several places is copied, so that each call site has its own instance; ``a += b`` becomes
    ``a + b``, which leaves the tensor a hook has seen alone. Names of modules and weights stay.
    Modules that are never called (the linear layers inside Swin attention are used as weights of
    a function) leave the module tree, so no fault can be planned where none would ever fire.
    The weights are shared with ``network``, outputs are equal bit for bit.

    Args:
        network: in evaluation mode, which is traced; without control flow that depends on values.
        first: modules, by name, that the input passes through before the network.
        operations: sums, concatenations and other operations of several tensors become modules,
            too: ``a + b`` in block ``layer1.0`` is ``layer1.0.add``, of class ``Add``.

    Raises:
        torch.fx.proxy.TraceError: where the control flow depends on values.
    """
    tracer = _Tracer()
    graph = tracer.trace(network)
    result = fx.GraphModule(network, graph)
    calls: Counter[str] = Counter()
    numbers: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node.op == "call_module":
            calls[node.target] += 1
            module = result.get_submodule(node.target)
            if calls[node.target] > 1 and not module.state_dict():
                node.target = _add(result, node.target, copy.deepcopy(module))
        elif node.op in ("call_function", "call_method"):
            if _works_in_place(node):
                _use_result(graph, node)
            if node.target in _IN_PLACE:
                node.target = _IN_PLACE[node.target]
            if not _replace(result, graph, node) and operations:
                operation = operation_of(node, numbers)
                if operation is not None:
                    _put(result, graph, node, operation, node.args, node.kwargs)
    _prepend(result, graph, first or {})
    graph.eliminate_dead_code(_does_something)
    graph.lint()
    result.recompile()
    return result.train(network.training)


def _does_something(node: fx.Node) -> bool:
    """Whether a node matters though nothing uses its result: torch.fx misses ``x.mul_(2)``."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = node.op.startswith("call_") and name.endswith("_") and not name.endswith("__")
    return node.is_impure() or in_place or node.kwargs.get("inplace") is True


def _works_in_place(node: fx.Node) -> bool:
    """Whether a function that gets, or may get, a module writes into its first argument."""
    if node.target in _IN_PLACE:
        return True
    if node.target not in _MODULES:
        return False
    name = node.target if isinstance(node.target, str) else node.target.__name__
    # by position it is the last argument of an activation; a pool's last may be ceil_mode
    last = node.args[-1] if _MODULES[node.target] in _ACTIVATIONS else False
    return name.endswith("_") or node.kwargs.get("inplace", last) is True


def _use_result(graph: fx.Graph, node: fx.Node) -> None:
    """Give what comes after the result in place of the argument, which stays as it was."""
    argument, order = node.args[0], list(graph.nodes)
    for user in order[order.index(node) + 1 :]:
        if isinstance(argument, fx.Node) and argument in user.all_input_nodes:
            user.replace_input_with(argument, node)


def _replace(result: fx.GraphModule, graph: fx.Graph, node: fx.Node) -> bool:
    """Put a module in the place of a function node; whether there is one for it."""
    if node.op == "call_method" and node.target in ("view", "reshape"):
        _put(result, graph, node, Reshape(), node.args)
        return True
    if node.target in _MODULES and node.all_input_nodes == [*node.args[:1]]:
        try:
            module = _MODULES[node.target](*node.args[1:], **node.kwargs)
        except TypeError:  # x.mean() over everything, a dtype: the function stays
            return False
        _put(result, graph, node, module, node.args[:1])
        return True
    return False


def _put(
    result: fx.GraphModule,
    graph: fx.Graph,
    node: fx.Node,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> None:
    """Call a module, named after function and block, where a function was called."""
    scope = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
    function = node.target if isinstance(node.target, str) else node.target.__name__
    name = _add(result, ".".join([*scope[-1:], function]), module)
    with graph.inserting_before(node):
        node.replace_all_uses_with(graph.call_module(name, args, kwargs))
    graph.erase_node(node)


def _add(result: fx.GraphModule, wanted: str, module: nn.Module) -> str:
    """Add the module under the first free of wanted, wanted_1, wanted_2, ...; return that name."""
    parent, _, leaf = wanted.rpartition(".")
    taken = set(dir(result.get_submodule(parent)) if _exists(result, parent) else ())
    number, free = 0, leaf
    while free in taken:
        number += 1
        free = f"{leaf}_{number}"
    name = f"{parent}.{free}" if parent else free
    result.add_submodule(name, module)
    return name


def _exists(result: fx.GraphModule, name: str) -> bool:
    try:
        result.get_submodule(name)
    except AttributeError:
        return False
    return True


def _prepend(result: fx.GraphModule, graph: fx.Graph, first: dict[str, nn.Module]) -> None:
    """Send the input of the graph through these modules, in their order."""
    source = next(node for node in graph.nodes if node.op == "placeholder")
    users, after = list(source.users), source
    for name, module in first.items():
        result.add_submodule(name, module)
        with graph.inserting_after(after):
            after = graph.call_module(name, (after,))
    for user in users:
        user.replace_input_with(source, after)
