"""One bit of a register that many values share: a scale, an exponent, a bias."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.described import WORKS
from progip.errors import ProgipError
from progip.fault_models.base import MAP, Hits, Site
from progip.fault_models.memory import InMemory
from progip.fault_models.single_bit_flip import SingleNeuron
from progip.number_formats.base import NumberFormat


@dataclass(kw_only=True)
class InRegisters(SingleNeuron):
    """One bit of the metadata that values share, in place of a value.

    The values are decoded with what the register then holds, as where it is hit after they were
    written: a flipped exponent scales its whole block. (GoldenEye's code encodes with it instead,
    which leaves the size of the values as it is.)

    Columns: ``neuron`` is the number of the block (0, or the channel), ``bit`` that of the
    register, ``value_before`` and ``value_after`` what the register stands for.
    """

    def select(self, sites: list[Site]) -> list[Site]:
        """The registers of the chosen layers. Raises ProgipError for a format without metadata."""
        chosen = super().select(sites)
        if not any(site.neurons for site in chosen):  # sizes are not known yet
            return chosen
        plain = next((site for site in chosen if not site.format.metadata_fields), None)
        if plain is not None:
            what = f"the {plain.parameter} of layer" if plain.parameter else "layer"
            where = "weights" if plain.parameter else "outputs"
            raise ProgipError(
                f"fault_model '{self.name}': {what} '{plain.layer}' is held in "
                f"'{plain.format.name}', which has no metadata; take number_format=integer, "
                f"block_fp or adaptive_fp with {where} in number_format.quantise, or another fault "
                "model"
            )
        return [_registers(site) for site in chosen]

    def _every_bit(self, number_format: NumberFormat) -> np.ndarray:
        return np.arange(number_format.metadata_bits, dtype=np.int8)


@dataclass(kw_only=True)
class MetadataBit(InRegisters):
    """Flip one bit of the metadata of a layer's output, in another image and layer each run."""

    sentence: ClassVar[str] = (
        "Each run flips one bit of the metadata (scale, shared exponent or bias) that the values "
        "of a layer's output share, in an image and a layer drawn at random [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {"GoldenEye": WORKS["GoldenEye"]}


@dataclass(kw_only=True)
class ParameterMetadataBit(InMemory, InRegisters):
    """A fault map is one bit of the metadata of one parameter, drawn anew for every round."""

    sentence: ClassVar[str] = (
        "Each fault map holds one faulty bit of the metadata (scale, shared exponent or bias) of "
        "one parameter, drawn at random, which stays for a round of images [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {"GoldenEye": WORKS["GoldenEye"]}

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The map."""
        return (*MAP, *InRegisters.columns.fget(self))  # type: ignore[attr-defined]

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The one bit that each map names, with its effect."""
        return self._effect(super().hits(sites, plan, seed, key))


def _registers(site: Site) -> Site:
    metadata = site.format.metadata(torch.zeros(1, *site.shape))
    assert metadata is not None
    shape = tuple(metadata.shape[1:])
    return replace(site, shape=shape, neurons=prod(shape), of_metadata=True)
