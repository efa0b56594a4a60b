"""Ablation-CAM (Desai, Ramaswamy, WACV 2020): which part of an image a class score rests on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from progip.engine.sites import hookable
from progip.errors import ProgipError

Map = NDArray[np.float64]
TOP = 0.2  # share of the image that two maps are compared in


def cam(maps: Tensor, score: float, ablated: Tensor, size: tuple[int, int]) -> Map | None:
    """ReLU(sum_k w_k A_k), enlarged to the image (bilinear) and scaled to [0, 1].

    w_k = (y - y_k) / |y|. The source divides by y, which turns the map over where y is negative;
    |y| scales all alike, as y > 0 does, so y near 0 does no harm.

    Args:
        maps: A, (K, h, w).
        score: y, the logit of the class.
        ablated: y_k (K,), the same with map k zeroed.
        size: of the image.

    Returns:
        (height, width); zeros where no map raises the score; None where a value is not finite.
    """
    weights = (score - ablated.double()) / max(abs(score), 1e-12)
    found = torch.einsum("k,khw->hw", weights, maps.double()).relu()
    if not bool(torch.isfinite(found).all()):
        return None
    whole = F.interpolate(found[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    low, high = float(whole.min()), float(whole.max())
    if high <= low:
        return np.zeros(size)
    scaled: Map = ((whole - low) / (high - low)).numpy()
    return scaled


def overlap(one: Map, other: Map, share: float = TOP) -> float:
    """Intersection over union of the pixels with the largest values, a share of each map."""
    count = max(1, round(share * one.size))
    tops = [set(np.argsort(-m, axis=None, kind="stable")[:count].tolist()) for m in (one, other)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def correlation(one: Map, other: Map) -> float:
    """Pearson's r of two maps; NaN where one is constant."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")


def last_maps(network: nn.Module, image: Tensor) -> str:
    """The module that gives the last maps (n, K, h, w) of more than one pixel.

    Raises:
        ProgipError: where there is none, as in a network of tokens.
    """
    found = ""

    def note(name: str, output: Any) -> None:
        nonlocal found
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            found = name

    handles = [
        module.register_forward_hook(lambda m, a, o, name=name: note(name, o))
        for name, module in hookable(network)
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ProgipError(
            f"{type(network).__name__} gives no maps (n, channels, height, width) that could be "
            "ablated; name a layer that does: --layer NAME"
        )
    return found


@contextmanager
def ablating(layer: nn.Module, channels: Tensor) -> Iterator[list[Tensor]]:
    """Within it the layer gives zeros for one channel of each image; -1: for none.

    Args:
        channels: (n,) of the images of each batch.

    Yields:
        the maps (K, h, w) of the first image of each batch, before anything is zeroed.
    """
    seen: list[Tensor] = []

    def zero(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        seen.append(output[0].detach().clone())
        rows = torch.nonzero(channels[: len(output)] >= 0).flatten()
        changed = output.clone()
        changed[rows, channels[rows]] = 0
        return changed

    handle = layer.register_forward_hook(zero)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def ablation_cam(
    network: nn.Module, layer: str, image: Tensor, label: int, batch_size: int = 32
) -> Map | None:
    """The map of one image for one class.

    Args:
        layer: whose maps (n, K, h, w) are ablated, one after the other.
        image: (1, channels, height, width), normalised.
        label: the class.

    Returns:
        as ``cam``.
    """
    module = network.get_submodule(layer)
    with ablating(module, torch.full((1,), -1)) as seen:
        score = float(network(image)[0, label])
    maps = seen[0]
    ablated = []
    for part in torch.arange(len(maps)).split(batch_size):
        with ablating(module, part):
            ablated.append(network(image.expand(len(part), -1, -1, -1))[:, label])
    return cam(maps, score, torch.cat(ablated), (image.shape[2], image.shape[3]))
