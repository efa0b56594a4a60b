"""Finds the penultimate feature of a network."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.calls import tensor_argument


def penultimate_module(network: nn.Module, feature_layer: str | None = None) -> nn.Module:
    """The module whose input is the penultimate feature: the classifier.

    Args:
        network: any network.
        feature_layer: its name in ``named_modules()``; default the last ``nn.Linear`` in their
            order, whose input is the feature (n, d) before the logits.

    Raises:
        ProgipError: where there is no such module, or no linear layer to fall back on.
    """
    modules = dict(network.named_modules())
    modules.pop("", None)
    if feature_layer is not None:
        if feature_layer in modules:
            return modules[feature_layer]
        close = difflib.get_close_matches(feature_layer, modules, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(modules)}"
        raise ProgipError(f"model.feature_layer: no module is called '{feature_layer}'; {hint}")
    linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
    if not linear:
        raise ProgipError(
            "the network has no linear layer, so its penultimate feature is unknown: name the "
            "module whose input it is with model.feature_layer=NAME (its last modules: "
            f"{', '.join(list(modules)[-4:])})"
        )
    return linear[-1]


@contextmanager
def input_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module is given, call by call.

    The hook comes before all others: a fault in the gradient that the module itself produces
    must not touch the feature, whose gradient does not pass through the module.
    """
    captured: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = tensor_argument(args, kwargs)
        if given is not None:
            captured.append(given)

    handle = module.register_forward_pre_hook(keep, prepend=True, with_kwargs=True)
    try:
        yield captured
    finally:
        handle.remove()
