"""Faults in the layers a user chooses: by type and by name."""

import re
from dataclasses import dataclass, field

from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site


@dataclass(kw_only=True)
class InLayers(FaultModel):
    """A fault model whose sites are calls of modules of given types and names.

    Attributes:
        layer_types: classes of the modules that can be hit, by name; a class derived from one of
            them counts, too.
        layers: regular expression a layer's full name must match; null for all.
    """

    layer_types: list[str] = field(default_factory=lambda: ["Conv2d", "Linear"])
    layers: str | None = None

    def __post_init__(self) -> None:
        if not self.layer_types:
            raise ProgipError(
                f"fault_model '{self.name}': layer_types is empty, so nothing can be hit; name "
                "classes of modules"
            )
        try:
            re.compile(self.layers or "")
        except re.error as error:
            raise ProgipError(
                f"fault_model '{self.name}': layers={self.layers!r} is not a regular expression: "
                f"{error}"
            ) from error

    def select(self, sites: list[Site]) -> list[Site]:
        typed = [s for s in sites if not {s.kind, *s.kinds}.isdisjoint(self.layer_types)]
        if not typed:
            kinds = ", ".join(sorted({s.kind for s in sites}))
            raise ProgipError(
                f"fault_model '{self.name}': no layer of type {', '.join(self.layer_types)} in "
                f"this pass; its layer types are {kinds}"
            )
        if self.layers is None:
            return typed
        chosen = [s for s in typed if re.fullmatch(self.layers, s.layer)]
        if not chosen:
            names = ", ".join(dict.fromkeys(s.layer for s in typed))
            raise ProgipError(
                f"fault_model '{self.name}': layers={self.layers!r} matches no layer; there are "
                f"{names}"
            )
        return chosen
