"""One bit of one neuron of one layer: the single-event upset of most of the literature."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip import records
from progip.errors import ProgipError
from progip.fault_models.base import NO_BIT, SUPER, Atoms, Site
from progip.fault_models.bits import check_bits, chosen_bits
from progip.fault_models.layers import InLayers
from progip.fault_models.random import integers, uniforms
from progip.number_formats.base import NumberFormat


@dataclass(kw_only=True)
class SingleNeuron(InLayers):
    """One neuron of one layer per run; what happens to it is up to the subclass.

    Attributes:
        weighting: ``layer`` (every layer equally likely, as in the ProGIP source) or ``neuron``
            (every neuron equally likely, so that large layers are hit more often).
        mark_super_layers: add the column ``super_layer``: whether every path from the input to the
            output of the network goes through the layer (TensorFI+).
    """

    weighting: str = "layer"
    mark_super_layers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting not in ("layer", "neuron"):
            raise ProgipError(
                f"fault_model '{self.name}': weighting={self.weighting!r} is not one of "
                "layer, neuron"
            )

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """``super_layer`` where it is asked for."""
        return SUPER if self.mark_super_layers else ()

    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        u = uniforms(seed, key, start, stop)
        neurons = np.array([s.neurons for s in sites], dtype=np.int64)
        if self.weighting == "layer":
            site = integers(u[:, 1], len(sites))
            neuron = integers(u[:, 2], neurons[site])
        else:
            ends = np.cumsum(neurons)
            flat = integers(u[:, 2], int(ends[-1]))
            site = np.searchsorted(ends, flat, side="right")
            neuron = flat - (ends - neurons)[site]
        return pa.table(
            {
                "run_id": np.arange(start, stop, dtype=np.int64),
                "sample_index": integers(u[:, 0], images).astype(np.int32),
                "layer": np.array([s.layer for s in sites], dtype=object)[site],
                "call": np.array([s.call for s in sites], dtype=np.int16)[site],
                "neuron": neuron,
                "bit": self._bits(u[:, 3], sites[0].format),
                "weight": np.ones(stop - start),
                "stratum": np.zeros(stop - start, dtype=np.int32),
            },
            schema=records.PLAN,
        )

    def atoms(self, sites: list[Site]) -> Atoms:
        every = self._every_bit(sites[0].format)
        neurons = np.array([s.neurons for s in sites], dtype=np.float64)
        share = np.ones(len(sites)) if self.weighting == "layer" else neurons
        return Atoms(
            sites,
            np.repeat(np.arange(len(sites)), len(every)),
            np.tile(every, len(sites)),
            np.repeat(share / share.sum() / len(every), len(every)),
        )

    def _bits(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        """The bit of each run, int8, from its uniform number."""
        every = self._every_bit(number_format)
        return every[integers(uniform, len(every))]

    @abstractmethod
    def _every_bit(self, number_format: NumberFormat) -> np.ndarray:
        """The bits of a code that a fault can hit, int8, all equally likely."""


@dataclass(kw_only=True)
class SingleBitFlip(SingleNeuron):
    """Flip one bit of the code of one value, in a different image, layer and neuron each run.

    Attributes:
        bits: of a value's code that can be hit, uniformly; 0 is the least significant. null: all.
        fields: in place of bits, names of fields of the number format: [exponent].
    """

    sentence: ClassVar[str] = (
        "Each run flips one bit of the code of one value, in an image, a layer, a neuron and a "
        "bit drawn at random."
    )

    bits: list[int] | None = None
    fields: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.name, self.bits, self.fields)

    def check_format(self, number_format: NumberFormat) -> None:
        chosen_bits(self.name, self.bits, self.fields, number_format)

    def _every_bit(self, number_format: NumberFormat) -> np.ndarray:
        return chosen_bits(self.name, self.bits, self.fields, number_format)


@dataclass(kw_only=True)
class NoFault(SingleNeuron):
    """The null campaign: planned and fired like a single bit flip, but flips nothing.

    Every run must equal its golden run bit for bit; whatever else a campaign with it shows is a
    defect of the runner or of the machine.
    """

    sentence: ClassVar[str] = (
        "Runs of the null campaign are planned and fired as single bit flips, but flip nothing."
    )

    def _every_bit(self, number_format: NumberFormat) -> np.ndarray:
        return np.array([NO_BIT], dtype=np.int8)
