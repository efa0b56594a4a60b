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
        columns: what it adds to result rows.
        populations: those it can be asked about.
    """

    name: str

    columns: ClassVar[tuple[pa.Field, ...]]
    populations: ClassVar[tuple[str, ...]] = POPULATIONS

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns it looks at, named as in golden rows; something must produce them.

        It sees the values of the run, and where there are two (``Column.paired``) those of the
        fault-free execution, too: ``golden_NAME`` and ``faulty_NAME``, else ``NAME``. ``label`` is
        always there.
        """

    @property
    @abstractmethod
    def declared(self) -> Declared:
        """The events and measures that are reported."""

    @abstractmethod
    def judge(self, runs: Runs, context: Context) -> dict[str, np.ndarray]:
        """One array (n,) a column of ``columns``; each row depends on that run alone."""
