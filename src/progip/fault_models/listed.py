"""Faults from a list: each of its lines is a fault map of one faulty bit."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip import records
from progip.errors import ProgipError
from progip.fault_models.base import Atoms, Hits, Site, named_hits
from progip.fault_models.memory import InMemory
from progip.number_formats.base import NumberFormat
from progip.storage.fault_lists import FaultList, read_list


@dataclass(kw_only=True)
class ListedFaults(InMemory):
    """Map i is line i of a list of single faulty bits of parameters (docs/weights.md).

    A cell executes the whole list; layers, parameters and bits are those of its lines.

    Attributes:
        file: CSV with the columns Layer, TensorIndex and Bit, as other injectors write it.
    """

    sentence: ClassVar[str] = (
        "Each fault map is a line of a given list: one faulty bit of one parameter, which stays "
        "for a round of images."
    )

    layer_types: list[str] | None = field(default_factory=lambda: None)
    file: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.file:
            raise ProgipError(
                f"fault_model '{self.name}': give the list with fault_model.file=FILE.csv"
            )
        chosen = {
            "layer_types": self.layer_types is not None,
            "layers": self.layers is not None,
            "skip_first": self.skip_first,
            "skip_last": self.skip_last,
        }
        given = [name for name, differs in chosen.items() if differs]
        if given:
            raise ProgipError(
                f"fault_model '{self.name}': {given[0]} has no effect: a list names its layers; "
                "leave it out, or shorten the list"
            )
        if len(self.parameters) != 1:
            raise ProgipError(
                f"fault_model '{self.name}': a list names values of one parameter of each layer; "
                "give one, as in fault_model.parameters=[weight]"
            )

    @cached_property
    def faults(self) -> FaultList:
        """The list. Raises ProgipError where it cannot be read."""
        return read_list(Path(self.file))

    def content(self) -> dict[str, str]:
        """The hash of the list."""
        return {"file": self.faults.sha256}

    def maps(self) -> int:
        """One a line."""
        return len(self.faults.layer)

    def check_format(self, number_format: NumberFormat) -> None:
        """Refuse bits the format does not have."""
        self.faults.check_bits(number_format.bits, f"number_format '{number_format.name}'")

    def select(self, sites: list[Site]) -> list[Site]:
        """The parameters that the list names. Raises ProgipError for one that is not there."""
        found = {site.layer: site for site in sites if site.parameter in self.parameters}
        if not any(site.neurons for site in sites):  # sizes are not known yet
            return list(found.values()) or super().select(sites)
        self.faults.check_places({name: site.shape for name, site in found.items()})
        named = set(self.faults.layer)
        return [site for name, site in found.items() if name in named]

    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """Lines start..stop-1 of the list; a cell never has more maps than lines."""
        by_layer = {site.layer: site for site in sites}
        part = slice(start, stop)
        layers = self.faults.layer[part]
        count = len(layers)
        return pa.table(
            {
                "run_id": np.arange(start, start + count, dtype=np.int64),
                "sample_index": np.zeros(count, dtype=np.int32),
                "layer": layers,
                "call": np.array([by_layer[name].call for name in layers], dtype=np.int16),
                "neuron": self.faults.flat({n: s.shape for n, s in by_layer.items()})[part],
                "bit": self.faults.bit[part].astype(np.int8),
                "weight": np.ones(count),
                "stratum": np.zeros(count, dtype=np.int32),
            },
            schema=records.PLAN,
        )

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The bit of each line, with its effect."""
        return self._effect(named_hits(sites, plan))

    def atoms(self, sites: list[Site]) -> Atoms:
        """A list is executed as it stands. Raises ProgipError."""
        raise ProgipError(
            f"fault_model '{self.name}': a list is executed as it stands; use sampling=uniform"
        )
