"""Clean value ranges of activations: how they are profiled, and how far a value leaves them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from progip.batch_axis import BatchAxis
from progip.errors import ProgipError
from progip.models.calls import Call, watch_calls
from progip.protections.placement import extremes, find_range_sites, images_in

log = logging.getLogger(__name__)

__all__ = ["Bounds", "RangeTable", "extremes", "find_range_sites", "profiling"]


class Bounds(NamedTuple):
    """Clean ranges of range-checked calls, float32 of any one shape.

    Attributes:
        low, high: smallest and largest clean value.
        width: high - low, above 0.
    """

    low: Tensor
    high: Tensor
    width: Tensor

    def excess(self, least: Tensor, most: Tensor) -> Tensor:
        """How far the extremes of some values leave their range, in widths of the range.

        <= 0 means inside; NaN where a value is NaN.
        """
        return torch.maximum((most - self.high) / self.width, (self.low - least) / self.width)


@dataclass
class RangeTable:
    """Smallest and largest clean value of every range-checked layer, over ID training images.

    Attributes:
        source: for each checked call, the activations whose range it has (``find_range_sites``).
        axis: for each checked call, where the images of a batch lie in its output.
        low, high: for each activation.
    """

    source: dict[Call, tuple[Call, ...]] = field(default_factory=dict)
    axis: dict[Call, BatchAxis] = field(default_factory=dict)
    low: dict[Call, float] = field(default_factory=dict)
    high: dict[Call, float] = field(default_factory=dict)

    @property
    def sites(self) -> list[Call]:
        return list(self.source)

    @property
    def layers(self) -> set[str]:
        return {layer for layer, _ in self.source}

    def limits(self, site: Call) -> tuple[float, float]:
        """The clean range of a checked call: smallest and largest value of its activations."""
        sources = self.source[site]
        return min(self.low[a] for a in sources), max(self.high[a] for a in sources)

    def bounds(self, device: torch.device) -> "Bounds":
        """The limits of all checked calls, in their order, on a device."""
        limits = torch.tensor([self.limits(site) for site in self.sites], dtype=torch.float64)
        low, high = limits.view(-1, 2).unbind(1)
        width = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        return Bounds(*(values.float().to(device) for values in (low, high, width)))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": s[0],
                "call": s[1],
                "axis": astuple(self.axis[s]),
                "source_layer": a[0],
                "source_call": a[1],
                "low": self.low[a],
                "high": self.high[a],
            }
            for s, sources in self.source.items()
            for a in sources
        ]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "RangeTable":
        table = cls()
        for row in rows:
            source = (row["source_layer"], row["source_call"])
            site = (row["layer"], row["call"])
            table.source[site] = (*table.source.get(site, ()), source)
            table.axis[site] = BatchAxis(*row["axis"])
            table.low[source], table.high[source] = row["low"], row["high"]
        return table


class RangeChecks:
    """What is kept of range-checked calls during a pass, and what is made of it afterwards."""

    def __init__(self, ranges: RangeTable) -> None:
        self._ranges = ranges
        self._bounds: Bounds | None = None

    def measured(self, site: Call, output: Tensor) -> Any:
        """What is kept of the output of a call until the passes are over."""
        return extremes(self._ranges.axis[site].rows(output))

    def wider(self, one: Any, other: Any) -> Any:
        """What is kept of two outputs of one call, of forward passes that are looked at as one."""
        return torch.minimum(one[0], other[0]), torch.maximum(one[1], other[1])

    def excess(self, seen: dict[Call, Any], images: Tensor) -> Any:
        """(B, range sites), of what was measured in some passes; -1 where nothing was."""
        if not seen:
            return images.new_full((len(images), len(self._ranges.sites)), -1.0)
        if self._bounds is None or self._bounds.low.device != images.device:
            self._bounds = self._ranges.bounds(images.device)
        least, most = zip(*(seen[site] for site in self._ranges.sites), strict=True)
        return self._bounds.excess(torch.stack(least, 1), torch.stack(most, 1))


@contextmanager
def profiling(network: nn.Module, images: Tensor) -> Iterator[RangeTable]:
    """Profile every forward pass made inside: smallest and largest value of each activation.

    The table is filled when the block ends. A call in whose output the images of a batch cannot be
    told apart is not checked; the log names it.

    Args:
        images: (n, channels, height, width), examples to find the checked calls with.

    Raises:
        ProgipError: an activation is not finite on a clean image.
    """
    sites = find_range_sites(network, images)
    table = RangeTable()
    for call, axis in images_in(network, sites, images).items():
        if isinstance(axis, BatchAxis):
            table.source[call], table.axis[call] = sites[call], axis
        else:
            reason = axis or "is the same for every image"
            log.warning("the range of layer '%s' is not checked: its output %s", call[0], reason)
    activations = {activation for sources in table.source.values() for activation in sources}
    low: dict[Call, Tensor] = {}
    high: dict[Call, Tensor] = {}

    def seen(site: Call, _: Any, output: Tensor) -> None:
        if site in activations:
            least, most = output.detach().aminmax()
            low[site] = torch.minimum(low.get(site, least), least)
            high[site] = torch.maximum(high.get(site, most), most)

    with watch_calls(network, {layer for layer, _ in activations}, seen):
        yield table
    for site in activations:
        table.low[site], table.high[site] = low[site].item(), high[site].item()
        if not (float("-inf") < table.low[site] and table.high[site] < float("inf")):
            raise ProgipError(
                f"layer '{site[0]}': its clean outputs are not finite on the training images; "
                "the weights or the normalisation are wrong"
            )
