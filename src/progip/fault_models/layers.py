"""Faults in the layers a user chooses: by type and by name."""

import re
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site


def kinds_of(module: nn.Module) -> tuple[str, ...]:
    """Class names by which a layer is chosen: its own first, then those it derives from."""
    bases = type(module).__mro__
    if is_parametrized(module):  # of a class that PyTorch made for this module alone
        bases = bases[1:]
    return tuple(b.__name__ for b in bases if issubclass(b, nn.Module) and b is not nn.Module) or (
        type(module).__name__,
    )


@dataclass(kw_only=True)
class InLayers(FaultModel):
    """A fault model whose sites are calls of modules of given types and names.

    Attributes:
        layer_types: classes of the modules that can be hit, by name; a class derived from one of
            them counts, too. null: every module that makes a tensor.
        layers: regular expression a layer's full name must match; null for all.
        skip_first, skip_last: leave the first or the last of these layers out, in the order of
            execution: TensorFI+ hits neither.
    """

    layer_types: list[str] | None = field(default_factory=lambda: ["Conv2d", "Linear"])
    layers: str | None = None
    skip_first: bool = False
    skip_last: bool = False

    def __post_init__(self) -> None:
        if self.layer_types is not None and not self.layer_types:
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
        chosen = self._typed(sites)
        if self.layers is not None:
            names = ", ".join(dict.fromkeys(s.layer for s in chosen))
            chosen = [s for s in chosen if re.fullmatch(self.layers, s.layer)]
            if not chosen:
                raise ProgipError(
                    f"fault_model '{self.name}': layers={self.layers!r} matches no layer; there "
                    f"are {names}"
                )
        left = chosen[self.skip_first : len(chosen) - self.skip_last]
        if not left:
            raise ProgipError(
                f"fault_model '{self.name}': nothing is left of the {len(chosen)} chosen layers "
                "without the first and the last; leave skip_first and skip_last false"
            )
        return left

    def _typed(self, sites: list[Site]) -> list[Site]:
        if self.layer_types is None:
            return sites
        typed = [s for s in sites if not {s.kind, *s.kinds}.isdisjoint(self.layer_types)]
        if not typed:
            kinds = ", ".join(sorted({s.kind for s in sites}))
            raise ProgipError(
                f"fault_model '{self.name}': no layer of type {', '.join(self.layer_types)} in "
                f"this pass; its layer types are {kinds}"
            )
        return typed
