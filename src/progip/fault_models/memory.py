"""Faults that stay in memory: a fault map in the parameters, for a whole round of images."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.base import MANY, MAP, Hits, Site
from progip.fault_models.layers import InLayers

EFFECTS = ("flip", "stuck_at_0", "stuck_at_1")


@dataclass(kw_only=True)
class InMemory(InLayers):
    """Faults in parameters: each fault map is written into memory, and stays for a round of images.

    Run i is of map i // n and image i modulo the number of images, n being the images of a round.

    Attributes:
        parameters: names of the parameters that can be hit, in their modules.
        images_per_map: images of a round; null: all. They are taken in turn.
        effect: ``flip``: a bit is inverted; ``stuck_at_0``, ``stuck_at_1``: it has that value, as
            of a defective cell, whatever was written.
    """

    parameters: list[str] = field(default_factory=lambda: ["weight"])
    images_per_map: int | None = None
    effect: str = "flip"

    scope: ClassVar[str] = "round"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parameters or len(set(self.parameters)) != len(self.parameters):
            raise ProgipError(
                f"fault_model '{self.name}': parameters={list(self.parameters)}: name at least "
                "one, each once, as in [weight,bias]"
            )
        if self.images_per_map is not None and self.images_per_map < 1:
            raise ProgipError(
                f"fault_model '{self.name}': images_per_map={self.images_per_map}: give at least "
                "one image, or null for all"
            )
        if self.effect not in EFFECTS:
            raise ProgipError(
                f"fault_model '{self.name}': effect={self.effect!r} is not one of "
                + ", ".join(EFFECTS)
            )

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """The map, and what runs with many hits have."""
        return (*MAP, *(MANY if self.many else ()))

    @property
    def target(self) -> str:
        """``weight`` or ``bias`` where only that is hit, else ``parameter``."""
        return self.parameters[0] if len(self.parameters) == 1 else "parameter"

    def rows_per_map(self, images: int) -> int:
        """``images_per_map``, or all of them. Raises ProgipError where there are fewer."""
        wanted = self.images_per_map
        if wanted is not None and wanted > images:
            raise ProgipError(
                f"fault_model '{self.name}': images_per_map={wanted}, and there are {images}; give "
                "fewer, or null for all"
            )
        return wanted or images

    def _typed(self, sites: list[Site]) -> list[Site]:
        return self._named(super()._typed(sites))

    def _named(self, sites: list[Site]) -> list[Site]:
        """The parameters asked for, of these layers."""
        found = [site for site in sites if site.parameter in self.parameters]
        absent = set(self.parameters) - {site.parameter for site in found}
        if absent:
            known = ", ".join(sorted({site.parameter for site in sites}))
            raise ProgipError(
                f"fault_model '{self.name}': no chosen layer has a parameter "
                f"'{min(absent)}'; they have {known or 'none'}"
            )
        return found

    def _effect(self, hits: Hits) -> Hits:
        """Hits that flip bits, with the effect asked for instead."""
        if self.effect == "flip":
            return hits
        stuck = hits.mask if self.effect == "stuck_at_1" else np.zeros_like(hits.mask)
        return hits._replace(mask=stuck, clear=hits.mask)
