"""Training on smaller images: resizing, and networks whose last pool has a fixed size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.calls import tensor_argument

Size = tuple[int, int]  # height, width


def scaled(size: Size, scale: float) -> Size:
    """The size with both sides multiplied by ``scale``, at least one pixel."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def resized(images: torch.Tensor, size: Size) -> torch.Tensor:
    """(n, c, h, w) to (n, c, *size), bilinear with antialiasing; as they are where they fit."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


class SmallerImages:
    """Lets a network train on smaller images than the ones it is made for.

    A pool of fixed size that takes the mean of the whole last map (``AvgPool2d(4)`` of a 4x4 map)
    does not fit the smaller map of a smaller image. For such images it is replaced by one that
    takes the mean of the whole map, whatever its size; for images of their own size the network
    is the one of ``spec``, untouched. Pools have no weights, so the state dict is always the same.

    Args:
        spec: whose network it is.
        network: in any mode.
        size: of the images it is made for.
        scales: parts of that size that it will be trained at; each is tried at once.

    Raises:
        ProgipError: where the network cannot take images of one of these sizes.
    """

    def __init__(self, spec: Model, network: nn.Module, size: Size, scales: list[float]) -> None:
        self.network = network
        self.size = size
        self.pools: list[str] = []
        self.pools = self._tried(spec, size)
        for smaller in sorted({scaled(size, scale) for scale in scales} - {size}):
            with self.at(smaller):
                self._tried(spec, smaller)

    @contextmanager
    def at(self, size: Size) -> Iterator[None]:
        """Within it the network takes images of this size."""
        originals = {name: self.network.get_submodule(name) for name in self.pools}
        if size != self.size:
            for name in originals:
                self.network.set_submodule(name, nn.AdaptiveAvgPool2d(1))
        try:
            yield
        finally:
            for name, pool in originals.items():
                self.network.set_submodule(name, pool)

    def _tried(self, spec: Model, size: Size) -> list[str]:
        try:
            return _whole_map_pools(self.network, spec.channels, size)
        except (RuntimeError, AssertionError, ValueError) as problem:
            advice = "choose another model or dataset"
            if size != self.size:
                advice = "leave it out: model.recipe.scales=[1.0] model.recipe.scale_milestones=[]"
            raise ProgipError(
                f"model '{spec.name}' cannot be trained on images of {size[0]} x {size[1]} pixels: "
                f"{str(problem).splitlines()[0][:200]}; {advice}"
            ) from problem


def _whole_map_pools(network: nn.Module, channels: int, size: Size) -> list[str]:
    """Names of the average pools that turn a whole map of images of this size into one value.

    Found by one black image in evaluation mode, which changes nothing in the network.
    """
    found: list[str] = []
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.AvgPool2d):

            def note(
                pool: nn.AvgPool2d, args: Any, kwargs: Any, output: Any, name: str = name
            ) -> None:
                given = tensor_argument(args, kwargs)
                if given is None:
                    return
                kernel = pool.kernel_size
                sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
                if tuple(given.shape[2:]) == sides and tuple(output.shape[2:]) == (1, 1):
                    found.append(name)

            handles.append(module.register_forward_hook(note, with_kwargs=True))
    training = network.training
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, *size, device=place))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return found
