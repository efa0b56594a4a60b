"""One bit of one parameter a fault map: what a list of single weight faults is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from progip.fault_models.base import MAP, Hits, Site
from progip.fault_models.memory import InMemory
from progip.fault_models.single_bit_flip import SingleBitFlip

RUOSPO = (
    "Ruospo, Gavarini, De Sio, Guerrero, Sterpone, Sonza Reorda, Sanchez, Mariani, Aribido, "
    "Athavale: Assessing convolutional neural networks reliability through statistical fault "
    "injections. DATE 2023. https://doi.org/10.23919/DATE56975.2023.10136998"
)


@dataclass(kw_only=True)
class ParameterBit(InMemory, SingleBitFlip):
    """A fault map is one bit of one parameter, drawn anew for every round of images.

    ``weighting``: ``neuron``: every value of the chosen parameters equally likely (the
    network-wise population of Ruospo et al.); ``layer``: every parameter tensor.
    """

    sentence: ClassVar[str] = (
        "Each fault map holds one faulty bit of one parameter, drawn at random, which stays for a "
        "round of images [Ruospo]."
    )
    references: ClassVar[Mapping[str, str]] = {"Ruospo": RUOSPO}

    weighting: str = "neuron"

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The map."""
        return (*MAP, *SingleBitFlip.columns.fget(self))  # type: ignore[attr-defined]

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The one bit that each map names, with its effect."""
        return self._effect(super().hits(sites, plan, seed, key))
