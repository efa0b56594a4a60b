"""What a fault model is: it draws the plan of a cell, before anything is executed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError


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


@dataclass(frozen=True)
class Atoms:
    """Every (site, bit) a single fault can hit, with its probability: what strata are made of.

    Attributes:
        sites: what ``FaultModel.select`` returned.
        site: (A,) position in ``sites``.
        bit: (A,) int8, as in ``records.PLAN``.
        probability: (A,) of the fault model's own law; positive, sums to 1.
    """

    sites: list[Site]
    site: np.ndarray
    bit: np.ndarray
    probability: np.ndarray


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

    def atoms(self, sites: list[Site]) -> Atoms:
        """Every (site, bit) with its probability under ``plan``; neuron and image are uniform.

        Raises:
            ProgipError: a fault of this model is not one bit of one neuron.
        """
        raise ProgipError(
            f"fault_model '{self.name}': its faults are not one bit of one neuron, so they have no "
            "strata; use sampling=uniform"
        )
