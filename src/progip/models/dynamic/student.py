"""Students as static networks: calibrated, written to a file that says what it is, and read."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.dynamic.mobilenet import MobileNetSpace
from progip.models.dynamic.resnet import ResNetSpace
from progip.models.dynamic.space import Architecture, Space
from progip.models.loading import RANDOM
from progip.models.weight_files import locate
from progip.storage.whole_files import write_whole

FAMILIES: dict[str, type[Space]] = {s.family: s for s in (ResNetSpace, MobileNetSpace)}
METADATA_KEY = "student"


@dataclass(kw_only=True)
class Student(Model):
    """A student of a dynamic network; its weight file says which architecture it is.

    Without a file, random or to be trained alone, it is the smallest student of the ResNet space.
    """

    def network(self) -> nn.Module:
        """Input (n, channels, h, w). Raises ProgipError where the file says no architecture."""
        if self.weights is None or self.weights == RANDOM:
            space: Space = ResNetSpace()
            return space.network(space.smallest(), self.classes, self.channels)
        space, architecture = read_architecture(locate(self))
        return space.network(architecture, self.classes, self.channels)


@torch.no_grad()
def calibrated(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """The network with statistics of batch normalisation estimated anew, in evaluation mode.

    Each is the mean over the batches of the batch's mean, and of its unbiased variance.

    Args:
        network: changed in place.
        batches: training images, clean, (n, channels, h, w) as the network wants them.
    """
    droppers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    rates = [module.p for module in droppers]
    for module in droppers:
        module.p = 0.0
    update_bn(batches, network)
    for module, rate in zip(droppers, rates, strict=True):
        module.p = rate
    return network.eval()


def write_student(
    network: nn.Module, space: Space, architecture: Architecture, path: Path, **more: Any
) -> None:
    """Write the weights; the file says space, architecture, and ``more`` of JSON types."""
    content = {"space": space.described(), "architecture": architecture, **more}
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(content, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def read_architecture(path: Path) -> tuple[Space, Architecture]:
    """What a file of ``write_student`` says of itself.

    Raises:
        ProgipError: where it is no such file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as content:
            said = json.loads((content.metadata() or {})[METADATA_KEY])
        options = dict(said["space"])
        space = FAMILIES[options.pop("family")](**options)
        architecture: Architecture = said["architecture"]
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as problem:
        raise ProgipError(
            f"{path} does not say of which student it holds the weights; model=student takes files "
            "that `python -m progip students` wrote"
        ) from problem
    space.check(architecture, str(path))
    return space, architecture
