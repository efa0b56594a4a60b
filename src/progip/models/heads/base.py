"""What every head is: modules in the place of a network's last linear layer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.features import input_of, penultimate_module


@dataclass(kw_only=True)
class Head(ABC):
    """One kind of head; the fields of a subclass are the options of its YAML file.

    It takes the place, and the name, of the last linear layer of any network. ``attach`` is all
    that is needed without a configuration: ``LinearHead().attach(network, 10)``.

    Attributes:
        name: the name of its YAML file.
    """

    name: str

    @abstractmethod
    def module(self, features: int, classes: int) -> nn.Module:
        """The freshly initialised head, as it is trained: (n, features) to logits (n, classes).

        Draws its initial weights from the global random generator of torch.
        """

    def start(self, head: nn.Module) -> None:  # noqa: B027 - most start with nothing more
        """Give the head what it starts with besides the initial weights of its layers."""

    def finished(self, head: nn.Module) -> nn.Module:
        """The head as campaigns execute it, once its weights are in. Default: as it is trained."""
        return head

    def form(self) -> dict[str, Any]:
        """The options that decide what the head computes when its weights are given."""
        return {"name": self.name, "class": f"{type(self).__module__}.{type(self).__qualname__}"}

    def attach(
        self,
        network: nn.Module,
        classes: int,
        feature_layer: str | None = None,
        *,
        start: bool = True,
    ) -> str:
        """Put the head in the place of the network's last linear layer; the name of that place.

        Args:
            network: any; changed in place.
            classes: of the logits.
            feature_layer: the name of that layer; default the last ``nn.Linear``.
            start: False where weights follow, so that nothing is read that they would replace.

        Raises:
            ProgipError: where that layer is not linear or does not give the logits, or what the
                head starts with cannot be read.
        """
        name = classifier_name(network, classes, feature_layer)
        old = network.get_submodule(name)
        assert isinstance(old, nn.Linear)
        head = self.module(old.in_features, classes)
        if start:
            self.start(head)
        head = head.to(old.weight)
        network.set_submodule(name, head.train(network.training))
        return name

    def finish(self, network: nn.Module, place: str) -> None:
        """Put ``finished`` in the place of the trained head, in the same mode."""
        head = network.get_submodule(place)
        done = self.finished(head)
        if done is not head:
            needs = any(parameter.requires_grad for parameter in head.parameters())
            network.set_submodule(place, done.train(head.training).requires_grad_(needs))


def classifier_name(network: nn.Module, classes: int, feature_layer: str | None = None) -> str:
    """The name of the linear layer that gives the logits (n, classes).

    Raises:
        ProgipError: where the layer (the last linear one, or ``feature_layer``) is none.
    """
    layer = penultimate_module(network, feature_layer)
    name = next(name for name, module in network.named_modules() if module is layer)
    what = f"the layer '{name}' ({type(layer).__name__}"
    advice = "name the linear layer that gives the logits: model.feature_layer=NAME"
    if not isinstance(layer, nn.Linear):
        raise ProgipError(f"{what}) is not linear, so no head can take its place; {advice}")
    if layer.out_features != classes:
        raise ProgipError(
            f"{what}, {layer.out_features} outputs) does not give the logits of {classes} classes, "
            f"so no head can take its place; {advice}"
        )
    return name


@torch.no_grad()
def check_last(network: nn.Module, place: str, images: Tensor) -> None:
    """Refuse a head whose output is not what the network gives.

    Args:
        place: the name of the head.
        images: (n, channels, height, width), as the network takes them.

    Raises:
        ProgipError: naming the place.
    """
    given: list[Any] = []
    head = network.get_submodule(place)
    handle = head.register_forward_hook(lambda _, __, output: given.append(output))
    try:
        with input_of(head) as features:
            logits = network(images)
    finally:
        handle.remove()
    if len(given) != 1 or not torch.equal(given[0].nan_to_num(), logits.nan_to_num()):
        calls = f"is called {len(given)} times" if len(given) != 1 else "is not the end"
        raise ProgipError(
            f"the head at '{place}' {calls} of {type(network).__name__}: its logits are not the "
            "network's; name the last layer: model.feature_layer=NAME"
        )
    if features[0].dim() != 2:
        raise ProgipError(
            f"the head at '{place}' is given features of shape {tuple(features[0].shape)}, not "
            "(n, features)"
        )
