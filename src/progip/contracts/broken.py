"""The error of a component that does not hold its contract, and options that YAML can give."""

import dataclasses
from typing import Any, NoReturn

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from progip.errors import ProgipError


class BrokenContract(ProgipError):
    """A component does not do what campaigns rely on; the message says what."""


class Owner:
    """Raises in the name of one component.

    Args:
        component: a dataclass with a ``name``.
    """

    def __init__(self, component: Any) -> None:
        self.component = component
        self.name = f"{type(component).__name__} '{getattr(component, 'name', '')}'"

    def breaks(self, what: str) -> NoReturn:
        raise BrokenContract(f"{self.name} {what}")

    def must(self, holds: bool, what: str) -> None:
        if not holds:
            self.breaks(what)

    def check_options(self) -> None:
        """Its fields are options of a YAML file: typed, and given back as they were taken."""
        cls = type(self.component)
        self.must(dataclasses.is_dataclass(cls), "is no dataclass, so it has no options")
        self.must(bool(getattr(self.component, "name", "")), "has no name")
        try:
            options = OmegaConf.structured(self.component)
            made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), options))
        except (OmegaConfBaseException, TypeError) as error:
            self.breaks(f"has options that YAML cannot give: {str(error).splitlines()[0]}")
        self.must(made == self.component, "is another one when its options are written and read")
