"""What a fault model is: it draws the plan of a cell, before anything is executed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Site:
    """A tensor that a pass computes and a fault can hit.

    Attributes:
        layer: name in ``named_modules()``.
        call: which call of that module in the pass (0 unless the module is reused).
        kind: class name of the module.
        shape: of one sample's tensor: the module's output in a forward pass, its input (whose
            gradient is the module's ``grad_input``) in the backward pass.
        neurons: elements of that tensor.
        macs: multiply-accumulates of the module's forward for one sample; 0 where not counted.
    """

    layer: str
    call: int
    kind: str
    shape: tuple[int, ...]
    neurons: int
    macs: int

    @property
    def key(self) -> tuple[str, int]:
        return self.layer, self.call


@dataclass(kw_only=True)
class FaultModel(ABC):
    """One fault model; the dataclass fields of a subclass are the options of its YAML file."""

    name: str

    @abstractmethod
    def select(self, sites: list[Site]) -> list[Site]:
        """The sites this fault model can hit. Raises ProgipError where none is left."""

    @abstractmethod
    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """The planned faults of runs start..stop-1, schema ``records.PLAN``.

        Row i depends on (seed, key, i) and on this fault model's options alone.

        Args:
            sites: what ``select`` returned.
            images: size of the population's evaluation split.
            key: names the cell.
        """
