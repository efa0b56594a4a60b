"""The networks of other people as a model of a user's own: ``UsersModel(kind="Crops")``."""

from dataclasses import dataclass

import refused_networks
import token_networks
import users_networks
from torch import nn

from progip.models.base import Model


@dataclass(kw_only=True)
class UsersModel(Model):
    """One network of the lists below, with random weights."""

    kind: str = ""

    def network(self) -> nn.Module:
        made: nn.Module = CLASSES[self.kind](self.channels, self.classes)
        return made


CLASSES = {
    name: cls
    for module in (users_networks, token_networks, refused_networks)
    for name, cls in vars(module).items()
    if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__ == module.__name__
}


def users_model(kind: str) -> list[str]:
    """The overrides of a composition that choose the network ``kind``."""
    return [
        "model._target_=users_model.UsersModel",
        f"model.name={kind}",
        f"+model.kind={kind}",
        "model.weights=random",
    ]
