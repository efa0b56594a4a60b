"""What an outcome is: it says what a fault changed in a run, and whether that is a failure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.described import Described
from progip.outcomes.declared import Declared
from progip.records import POPULATIONS

#: columns of n runs, named as in result rows
Runs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Context:
    """What an outcome may know of a cell.

    Attributes:
        population: ``id`` or ``ood``.
        ood_threshold: scores above it are in-distribution.
    """

    population: str
    ood_threshold: float


@dataclass(kw_only=True)
class Outcome(Described, ABC):
    """One outcome; the dataclass fields of a subclass are the options of its YAML file.

    It is a function of what was observed, the same for all protections, before any alarm.

    Attributes:
        name: what result rows call it; the name of its YAML file.

    Class attributes:
        populations: those it can be asked about.
    """

    name: str

    populations: ClassVar[tuple[str, ...]] = POPULATIONS

    @property
    @abstractmethod
    def columns(self) -> tuple[pa.Field, ...]:
        """What it adds to result rows."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns it looks at, named as in golden rows; something must produce them.

        It sees the values of the run, and where there are two (``Column.paired``) those of the
        fault-free execution, too: ``golden_NAME`` and ``faulty_NAME``, else ``NAME``. A column of
        lists is an array (n, k). ``label`` is always there.
        """

    @property
    @abstractmethod
    def declared(self) -> Declared:
        """The events and measures that are reported."""

    def check(self, classes: int) -> None:
        """Refuse options that do not fit so many classes. Raises ProgipError."""

    def clean(self, golden: Runs) -> dict[str, int]:
        """For the manifest: counts of what the fault-free network does with the evaluation images.

        Args:
            golden: golden rows, columns named as there.
        """
        return {}

    @abstractmethod
    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """One array (n,) a column of ``columns``; each row depends on that run alone."""


def flags(*names: str) -> tuple[pa.Field, ...]:
    """Columns of booleans."""
    return tuple(pa.field(name, pa.bool_()) for name in names)
