"""Many elements of one or several layers at once: the other fault types of TensorFI+."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.described import WORKS
from progip.errors import ProgipError
from progip.fault_models.base import Hits, Site, unnamed
from progip.fault_models.bits import check_bits, chosen_bits
from progip.fault_models.layers import InLayers
from progip.fault_models.random import RunStreams, integers, run_streams, uniforms
from progip.number_formats.base import NumberFormat

LAYERS, NEURONS, VALUES = 1, 2, 3  # streams of a run
NOTHING, NO_NUMBERS = np.zeros(0, dtype=np.int64), np.zeros(0)
ALL_BITS = np.uint32(0xFFFFFFFF)


@dataclass(kw_only=True)
class Elements(InLayers):
    """Distinct elements of distinct layers are hit in every run; how is up to the subclass.

    Attributes:
        at_once: number of layers that a run hits, all choices of them equally likely; null: all.
    """

    at_once: int | None = 1

    many: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at_once is not None and self.at_once < 1:
            raise ProgipError(
                f"fault_model '{self.name}': at_once={self.at_once}: give 1 layer or more, or null "
                "for all"
            )

    def select(self, sites: list[Site]) -> list[Site]:
        """As in the base class; refuses more layers at once than there are."""
        chosen = super().select(sites)
        if self.at_once is not None and self.at_once > len(chosen):
            raise ProgipError(
                f"fault_model '{self.name}': at_once={self.at_once} of {len(chosen)} layers; give "
                "fewer, or null for all"
            )
        return chosen

    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """As in the base class; ``hits`` says which layers and elements each run hits."""
        runs = np.arange(start, stop, dtype=np.int64)
        return unnamed(runs, integers(uniforms(seed, key, start, stop)[:, 0], images))

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The hits of each planned run, from (seed, key, run_id) alone; sites in order."""
        streams = run_streams(seed, key)
        sizes = np.array([site.neurons for site in sites])
        parts: list[tuple[np.ndarray, ...]] = [(NOTHING, NOTHING, NOTHING, NO_NUMBERS)]
        for row, run in enumerate(plan["run_id"].to_pylist()):
            chosen = self._layers(streams, run, len(sites))
            drawn = streams.uniforms([run], NEURONS, [int(sizes[chosen].sum())])
            orders = np.split(drawn, np.cumsum(sizes[chosen])[:-1])
            hit = [_smallest(order, self._count(len(order))) for order in orders]
            site, neuron = np.repeat(chosen, list(map(len, hit))), np.concatenate(hit)
            numbers = streams.uniforms([run], VALUES, [len(site)])
            parts.append((np.full(len(site), row), site, neuron, numbers))
        rows, where, neurons, numbers = (np.concatenate(p) for p in zip(*parts, strict=True))
        mask, clear = self._words(numbers, sites[0].format)
        return Hits(rows, where, neurons, mask, clear)

    def _layers(self, streams: RunStreams, run: int, layers: int) -> np.ndarray:
        if self.at_once is None:
            return np.arange(layers)
        order = streams.uniforms([run], LAYERS, [layers])
        return np.sort(np.argsort(order, kind="stable")[: self.at_once])

    @abstractmethod
    def _count(self, neurons: int) -> int:
        """How many of a layer's elements are hit."""

    @abstractmethod
    def _words(
        self, uniform: np.ndarray, number_format: NumberFormat
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What to flip, and what to clear before (``Hits``), from a uniform number of each hit."""


@dataclass(kw_only=True)
class ZeroedElements(Elements):
    """A share of a layer's elements becomes 0 (``zeros`` of TensorFI+).

    Attributes:
        share: of the elements of a layer, 0 to 1, rounded down; TensorFI+ gives it in per cent.
    """

    sentence: ClassVar[str] = (
        "Each run sets a share of the elements of a layer's output to zero [TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ProgipError(f"fault_model '{self.name}': share={self.share}: give 0 to 1")

    def _count(self, neurons: int) -> int:
        return int(self.share * neurons)

    def _words(
        self, uniform: np.ndarray, number_format: NumberFormat
    ) -> tuple[np.ndarray, np.ndarray | None]:
        nothing = np.zeros(len(uniform), dtype=np.uint32)
        return nothing, nothing | ALL_BITS


@dataclass(kw_only=True)
class SomeElements(Elements):
    """So many elements of each layer that is hit.

    Attributes:
        number: of elements of each layer that is hit.
    """

    number: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.number < 1:
            raise ProgipError(
                f"fault_model '{self.name}': number={self.number}: give at least 1 element"
            )

    def select(self, sites: list[Site]) -> list[Site]:
        """As in the base class; refuses a layer with fewer elements."""
        chosen = super().select(sites)
        small = next((site for site in chosen if 0 < site.neurons < self.number), None)
        if small is not None:
            raise ProgipError(
                f"fault_model '{self.name}': number={self.number} elements of layer "
                f"'{small.layer}', which has {small.neurons}; give fewer, or leave it out with "
                "fault_model.layers"
            )
        return chosen

    def _count(self, neurons: int) -> int:
        return self.number


@dataclass(kw_only=True)
class RandomElements(SomeElements):
    """Elements are replaced by random values in [0, 1) (``random`` of TensorFI+)."""

    sentence: ClassVar[str] = (
        "Each run replaces elements of a layer's output by random values between 0 and 1 "
        "[TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    def _words(
        self, uniform: np.ndarray, number_format: NumberFormat
    ) -> tuple[np.ndarray, np.ndarray | None]:
        fractions = np.floor(uniform * 2.0**24) * 2.0**-24  # float32 holds them, and none is 1
        values = torch.from_numpy(fractions.astype(np.float32))
        codes = number_format.encode(number_format.quantised(values)).numpy()
        return codes.view(np.uint32), np.full(len(codes), ALL_BITS)


@dataclass(kw_only=True)
class FlippedElements(SomeElements):
    """One bit of each of some elements flips (``bitflips`` of TensorFI+ with a larger amount).

    Attributes:
        bits, fields: as in ``SingleBitFlip``: those that can be hit, uniformly.
    """

    sentence: ClassVar[str] = (
        "Each run flips one bit of each of some elements of a layer's output [TensorFI+]."
    )
    references: ClassVar[Mapping[str, str]] = {"TensorFI+": WORKS["TensorFI+"]}

    bits: list[int] | None = None
    fields: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.name, self.bits, self.fields)

    def check_format(self, number_format: NumberFormat) -> None:
        chosen_bits(self.name, self.bits, self.fields, number_format)

    def _words(
        self, uniform: np.ndarray, number_format: NumberFormat
    ) -> tuple[np.ndarray, np.ndarray | None]:
        bits = chosen_bits(self.name, self.bits, self.fields, number_format).astype(np.uint32)
        return np.uint32(1) << bits[integers(uniform, len(bits))], None


def _smallest(order: np.ndarray, count: int) -> np.ndarray:
    """Where the ``count`` smallest numbers are, ascending: distinct places, all choices alike."""
    return np.sort(np.argpartition(order, count - 1)[:count]) if count else NOTHING
