"""A correcting protection in a network of one's own: fitted, saved, loaded."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from progip.campaign.settings_identity import identity
from progip.errors import ProgipError
from progip.models.loading import weights_fingerprint
from progip.models.rewrite import with_own_modules
from progip.protections.bounded.base import BoundedActivation
from progip.protections.bounded.sites import functional_relus
from progip.protections.correcting import Correcting, State, learnt_by, protected_with

KEY = "protected_network"


def protected_network(
    network: nn.Module, protection: Correcting, train: Iterable[tuple[Tensor, Tensor]]
) -> nn.Module:
    """A copy that mends itself, sharing the weights of the network.

    Where a bounded activation meets relu as a function, the network is traced and the function
    becomes a module.

    Args:
        network: in evaluation mode; left as it was.
        train: (images, labels) batches of training data, never test data; images are normalised, on
            the network's device.

    Raises:
        ProgipError: as ``Correcting.fit`` does; the network is in training mode; relu is called as
            a function and the network cannot be traced.
    """
    if network.training:
        raise ProgipError(f"protection '{protection.name}': call network.eval() first")
    batches = list(train)
    if not batches:
        raise ProgipError("train: there is no batch of training images")
    own = _with_own_relus(network, protection, batches[0][0])
    return protected_with(own, protection, protection.fit(own, batches))


def save_protected(network: nn.Module, path: str | Path) -> None:
    """Write what the protection learnt to a .safetensors file, without the network's weights.

    Raises:
        ProgipError: the network has no correcting protection, or the file cannot be written.
    """
    learnt = learnt_by(network)
    content = {"weights": learnt.weights, "protection": _identity(learnt.protection)}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in learnt.state.items()}
    try:
        save_file(tensors, path, {KEY: json.dumps(content)})
    except (OSError, SafetensorError) as error:
        raise ProgipError(f"cannot write {path} ({error})") from error


def load_protected(path: str | Path, network: nn.Module, protection: Correcting) -> nn.Module:
    """The protected network of a file that ``save_protected`` wrote.

    Args:
        network: with the weights that it was protected with, in evaluation mode.
        protection: with the options that it was protected with.

    Raises:
        ProgipError: the file is not one, or was made with other weights or options.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ProgipError(f"{path} holds no protected network ({error})") from error
    if content["weights"] != weights_fingerprint(network):
        raise ProgipError(f"{path} was made with other weights; protect the network again")
    mine = _identity(protection)
    other = [key for key in mine if content["protection"].get(key) != mine[key]]
    if other or content["protection"].keys() != mine.keys():
        raise ProgipError(
            f"{path} was made with another protection or other options "
            f"({', '.join(other) or 'class'}); give the same, or protect the network again"
        )
    return protected_again(network, protection, state)


def protected_again(network: nn.Module, protection: Correcting, state: State) -> nn.Module:
    """The copy that ``protected_network`` made, from what the protection had learnt."""
    layers = {key.rpartition("#")[0] for key in state if "#" in key}
    if not layers <= {name for name, _ in network.named_modules()}:  # its relus were functions
        network = with_own_modules(network)
    return protected_with(network, protection, state)


def _with_own_relus(network: nn.Module, protection: Correcting, images: Tensor) -> nn.Module:
    if not isinstance(protection, BoundedActivation) or not functional_relus(network, images[:2]):
        return network
    try:
        return with_own_modules(network)
    except fx.proxy.TraceError as error:
        raise ProgipError(
            f"protection '{protection.name}': layer '{functional_relus(network, images[:2])[0]}' "
            f"calls relu as a function, and the network cannot be traced ({error}); write it as a "
            "module (nn.ReLU)"
        ) from error


def _identity(protection: Correcting) -> dict[str, object]:
    content = {"class": type(protection).__name__, **identity(protection)}
    return dict(json.loads(json.dumps(content)))
