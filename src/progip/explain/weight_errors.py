"""Ablation-CAM of two networks under the same weight bit errors: how far their maps move."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from progip.errors import ProgipError
from progip.explain.ablation_cam import Map, ablation_cam, correlation, last_maps, overlap


@dataclass(frozen=True)
class Errors:
    """Bit errors in parameters that two networks share.

    Attributes:
        names: of the parameters, in the order of the first network.
        parameter: of each error, a place in ``names``; element: flat; bit: 0 to 31.
    """

    names: tuple[str, ...]
    parameter: NDArray[np.int64]
    element: NDArray[np.int64]
    bit: NDArray[np.int64]

    @classmethod
    def drawn(cls, one: nn.Module, other: nn.Module, count: int, seed: int) -> "Errors":
        """So many different bits, uniform over those of the float32 weights both networks have.

        Shared are weights of the same name and shape of more than one dimension: a head that only
        one of them has is never hit, so the sites are the same in both.

        Raises:
            ProgipError: they share none, or fewer bits than errors.
        """
        theirs = dict(other.named_parameters())
        shared = {
            name: value.numel()
            for name, value in one.named_parameters()
            if value.ndim > 1
            and value.dtype == torch.float32
            and name in theirs
            and theirs[name].shape == value.shape
        }
        ends = np.cumsum([32 * size for size in shared.values()], dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        if not 1 <= count <= total:
            raise ProgipError(f"errors={count}: the networks share {total:,} bits of weights")
        random = np.random.default_rng(seed)
        places = random.choice(total, count, replace=False)
        parameter = np.searchsorted(ends, places, side="right")
        inside = places - np.concatenate([[0], ends])[parameter]
        return cls(tuple(shared), parameter, inside // 32, inside % 32)

    def flip(self, network: nn.Module) -> None:
        """Invert the bits in the network's weights; once more takes the errors back."""
        values = dict(network.named_parameters())
        for place, name in enumerate(self.names):
            here = self.parameter == place
            words = values[name].detach().view(-1).view(torch.int32)
            masks = (np.uint32(1) << self.bit[here].astype(np.uint32)).view(np.int32)
            # several errors may lie in one element
            for element, mask in zip(self.element[here].tolist(), masks.tolist(), strict=True):
                words[element] ^= mask


def moved_maps(
    networks: dict[str, nn.Module],
    images: Tensor,
    errors: int,
    maps: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Clean and faulty maps compared, of each image under each fault map, in both networks.

    The class is the clean one of each network, the layer its last maps.

    Args:
        networks: two, by name, in evaluation mode; they are left as they were.
        images: (n, channels, height, width), normalised.
        errors: bit errors of each fault map.
        maps: fault maps.

    Returns:
        one row per network, map and image: overlap and correlation (NaN where the faulty network
        gives no finite map), finite, same_class.
    """
    one, other = networks.values()
    layers = {name: last_maps(network, images[:1]) for name, network in networks.items()}
    clean = {name: _maps(network, layers[name], images) for name, network in networks.items()}
    rows: list[dict[str, object]] = []
    for number in tqdm(range(maps), unit="map", disable=None):
        drawn = Errors.drawn(one, other, errors, seed + number)
        for name, network in networks.items():
            labels = [label for label, _ in clean[name]]
            drawn.flip(network)
            try:
                faulty = _maps(network, layers[name], images, labels)
            finally:
                drawn.flip(network)
            for index, (before, after) in enumerate(zip(clean[name], faulty, strict=True)):
                row = {"network": name, "map": number, "image": index}
                rows.append(row | _compared(*before, *after))
    return pd.DataFrame(rows)


@torch.no_grad()
def _maps(
    network: nn.Module, layer: str, images: Tensor, labels: list[int] | None = None
) -> list[tuple[int, Map | None]]:
    """The class of each image, -1 for none, and its map for that class or the label given."""
    logits = network(images)
    whole = torch.isfinite(logits).all(1).tolist()
    classes = [int(c) if w else -1 for c, w in zip(logits.argmax(1), whole, strict=True)]
    wanted = classes if labels is None else labels
    maps = [
        ablation_cam(network, layer, image[None], label) if w and label >= 0 else None
        for image, label, w in zip(images, wanted, whole, strict=True)
    ]
    return list(zip(classes, maps, strict=True))


def _compared(label: int, before: Map | None, found: int, after: Map | None) -> dict[str, object]:
    row: dict[str, object] = {"finite": after is not None, "same_class": found == label >= 0}
    if before is None or after is None:
        return row | {"overlap": np.nan, "correlation": np.nan}
    return row | {"overlap": overlap(before, after), "correlation": correlation(before, after)}


def summary(found: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row per network, in words; intervals are Student's over fault maps, each counting alike.

    Args:
        found: as ``moved_maps`` gives it.
    """
    lines = []
    for name, part in found.groupby("network", sort=False):
        line: dict[str, object] = {
            "network": name,
            "maps x images": f"{part['map'].nunique()} x {part['image'].nunique()}",
            "finite map, %": f"{100 * part['finite'].mean():.1f}",
            "same class, %": f"{100 * part['same_class'].mean():.1f}",
        }
        for measure in ("overlap", "correlation"):
            means = part.groupby("map")[measure].mean().dropna()
            n = len(means)
            half = np.nan
            if n > 1:
                half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * means.std() / np.sqrt(n))
            low = max(means.mean() - half, 0.0 if measure == "overlap" else -1.0)
            high = min(means.mean() + half, 1.0)
            line[measure] = f"{means.mean():.3f} ({low:.3f} to {high:.3f}), {n} maps"
        lines.append(line)
    return pd.DataFrame(lines)
