"""A bit error rate over parameters: every bit is faulty with the same probability."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.base import Hits, Site, unnamed
from progip.fault_models.memory import InMemory
from progip.fault_models.random import RunStreams, integers, run_streams

COUNTS = ("binomial", "floor_per_tensor", "rounded")
PLACES, NUMBERS = 1, 2  # streams of a map
NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(kw_only=True)
class BitErrorRate(InMemory):
    """Every bit of every chosen parameter is faulty with probability ``rate``, map by map.

    Only faulty bits are drawn, by the gaps between them, so the work is that of the faults.

    Attributes:
        rate: probability that a bit is faulty, 0 to 1; 0 is the fault-free network.
        count: ``binomial``: each bit on its own; ``rounded``: so many distinct bits as are
            expected, rounded; ``floor_per_tensor``: of each tensor as many as are expected, rounded
            down, drawn with replacement. The last is what the RReLU toolbox does; at low rates it
            injects nothing into small tensors.
    """

    sentence: ClassVar[str] = (
        "Each fault map makes every bit of the chosen parameters faulty with the same small "
        "probability, for a round of images."
    )
    references: ClassVar[Mapping[str, str]] = {}

    parameters: list[str] = field(default_factory=lambda: ["weight", "bias"])
    rate: float = 1e-6
    count: str = "binomial"

    many: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ProgipError(
                f"fault_model '{self.name}': rate={self.rate} is not a probability; give the share "
                "of bits that are faulty, 0 to 1"
            )
        if self.count not in COUNTS:
            raise ProgipError(
                f"fault_model '{self.name}': count={self.count!r} is not one of {', '.join(COUNTS)}"
            )

    def _named(self, sites: list[Site]) -> list[Site]:
        """As in the base class; a network without biases has all its parameters hit."""
        return [site for site in sites if site.parameter in self.parameters] or super()._named(
            sites
        )

    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """As in the base class; ``hits`` says which bits each map makes faulty."""
        maps = np.arange(start, stop, dtype=np.int64)
        return unnamed(maps, np.zeros_like(maps))

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The faults of each planned map, from (seed, key, number of the map) alone."""
        width = sites[0].format.bits
        sizes = np.array([site.neurons for site in sites], dtype=np.int64)
        ends = np.cumsum(sizes * width)
        streams = run_streams(seed, key)
        parts: list[tuple[np.ndarray, ...]] = [(NOTHING, NOTHING, np.zeros(0, np.uint32))]
        for row, number in enumerate(plan["run_id"].to_pylist()):
            places = self._places(streams, number, sizes * width)
            word, bit = np.divmod(places, width)
            once, position = np.unique(word, return_inverse=True)
            mask = np.zeros(len(once), dtype=np.uint32)
            # a bit that was drawn twice is back where it was, as in the toolbox
            operation = np.bitwise_xor if self.effect == "flip" else np.bitwise_or
            operation.at(mask, position, np.uint32(1) << bit.astype(np.uint32))
            kept = mask != 0
            parts.append((np.full(kept.sum(), row), once[kept], mask[kept]))
        rows, words, masks = (np.concatenate(p) for p in zip(*parts, strict=True))
        site = np.searchsorted(ends, words * width, side="right")
        first = np.concatenate([[0], np.cumsum(sizes)])[site]
        return self._effect(Hits(rows, site, words - first, masks))

    def _places(self, streams: RunStreams, number: int, bits: np.ndarray) -> np.ndarray:
        """The faulty bits of a map, as positions among all bits of all tensors."""
        total = int(bits.sum())
        if self.count == "floor_per_tensor":
            counts = (bits * self.rate).astype(np.int64)
            drawn = streams.uniforms([number], NUMBERS, [int(counts.sum())])
            tensor = np.repeat(np.arange(len(bits)), counts)
            first = np.concatenate([[0], np.cumsum(bits)])[tensor]
            return first + integers(drawn, bits[tensor])
        if self.count == "rounded":
            return _distinct(streams, number, round(total * self.rate), total)
        return _bernoulli(streams, number, self.rate, total)


def _bernoulli(streams: RunStreams, number: int, rate: float, total: int) -> np.ndarray:
    """Positions that are hit, each with probability ``rate``: by the geometric gaps."""
    if rate == 0:
        return NOTHING
    expected = rate * total
    count = int(expected + 8 * expected**0.5) + 16
    while True:
        drawn = streams.uniforms([number], PLACES, [count])
        with np.errstate(divide="ignore"):  # rate 1: no gaps
            gaps = np.log1p(-drawn) / np.log1p(-rate)
        places = np.cumsum(np.minimum(gaps, total).astype(np.int64) + 1) - 1
        if places[-1] >= total:
            return places[places < total]
        count *= 2  # from the start: the same numbers, and more of them


def _distinct(streams: RunStreams, number: int, wanted: int, total: int) -> np.ndarray:
    """So many distinct positions, all choices alike: the first that turn up."""
    count = wanted + 16
    while True:
        drawn = integers(streams.uniforms([number], NUMBERS, [count]), total)
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= wanted:
            return np.sort(drawn[np.sort(first)[:wanted]])
        count = min(2 * count, 64 * total)
