"""Watches, or replaces, what each call of a module gives within one forward pass."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Call = tuple[str, int]  # a module's name, and which of its calls in a forward pass

#: (which call, the tensor it was given, its output) -> another output, or None to leave it
CallHook = Callable[[Call, Any, Any], Any]


def tensor_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor that a module is called with, by position or else by keyword."""
    return next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)


def with_tensor_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments with another tensor in the place of ``tensor_argument``."""
    for position, value in enumerate(args):
        if isinstance(value, Tensor):
            return (*args[:position], tensor, *args[position + 1 :]), kwargs
    name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    return args, {**kwargs, name: tensor}


def hook_calls(
    network: nn.Module,
    layers: Collection[str],
    hook: CallHook,
    start: Callable[[Tensor], None] | None = None,
) -> list[RemovableHandle]:
    """Call ``hook`` after every call of the named modules.

    Calls are counted from the start of each forward pass of the network, where ``start`` gets the
    images.
    """
    counts: dict[str, int] = {}

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts.clear()
        images = tensor_argument(args, kwargs)
        if start is not None and images is not None:
            start(images)

    handles = [network.register_forward_pre_hook(begin, with_kwargs=True)]
    for name in layers:

        def after(_: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> Any:
            call = (name, counts.get(name, 0))
            counts[name] = call[1] + 1
            return hook(call, tensor_argument(args, kwargs), output)

        module = network.get_submodule(name)
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    return handles


@contextmanager
def watch_calls(
    network: nn.Module,
    layers: Collection[str],
    seen: CallHook,
    start: Callable[[Tensor], None] | None = None,
) -> Iterator[None]:
    """``hook_calls`` for the forward passes made inside."""
    handles = hook_calls(network, layers, seen, start)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
