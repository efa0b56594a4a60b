"""What a sampling plan is: it decides which part of the space each run's fault comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from progip import records
from progip.described import Described
from progip.errors import ProgipError
from progip.fault_models.base import Atoms, FaultModel, Site


class CleanValues(Protocol):
    """What is known of fault-free values: ``progip.engine.clean_values``."""

    scale: np.ndarray
    counts: np.ndarray

    def neurons(
        self, image: np.ndarray, site: np.ndarray, code: np.ndarray, rank: np.ndarray
    ) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class FaultSpace:
    """Every fault a cell can have: the fault model's law over sites, bits and images.

    Attributes:
        sites: what ``fault_model.select`` returned.
        correct: (images,) booleans: whether the fault-free outcome of the image is right.
        distance: (images,) of the image's fault-free score from the OOD threshold.
        find_values: executes the images for what a plan by ``change`` needs; None: not to be had.
    """

    fault_model: FaultModel
    sites: list[Site]
    correct: np.ndarray
    distance: np.ndarray | None = None
    find_values: Callable[[], CleanValues] | None = None

    @cached_property
    def atoms(self) -> Atoms:
        return self.fault_model.atoms(self.sites)

    @property
    def neurons(self) -> np.ndarray:
        """(sites,) of each site."""
        return np.array([site.neurons for site in self.sites], dtype=np.int64)

    @property
    def size(self) -> int | None:
        """Number of different faults: images x neurons x bits.

        None where they cannot be counted, because a fault hits any number of neurons, or where
        they are a list, which is executed whole.
        """
        if self.fault_model.many or self.fault_model.maps() is not None:
            return None
        return len(self.correct) * int(self.neurons[self.atoms.site].sum())


@dataclass(frozen=True)
class Pilot:
    """What the first runs of a cell showed, counts of each stratum, all (H,).

    Attributes:
        rows, failures: runs, and those that failed.
        quiet: failures that some check could miss: the gradient and the score stay as clean ones
            are, or the activations do. No protection decides this, so all share one plan.
    """

    rows: np.ndarray
    failures: np.ndarray
    quiet: np.ndarray


@dataclass(kw_only=True)
class SamplingPlan(Described, ABC):
    """One way to draw faults; the fields of a subclass are the options of its YAML file.

    Attributes:
        roulette: probability with which a run whose change has become tiny goes on; what is tiny
            is learnt from the first runs (``progip.sampling.roulette``). 1: no run is ended.
        roulette_pilot: the number of these, or the plan's own pilot where that is larger.
    """

    #: whether ``size`` says how many runs a cell has
    sized: ClassVar[bool] = False

    name: str
    roulette: float = 1.0
    roulette_pilot: int = 2000

    @property
    def pilot_runs(self) -> int:
        """Runs that must be executed before the plan of later ones is known; 0 for none."""
        return 0

    def check_roulette(self) -> None:
        """Refuse values that make no sense. Raises ProgipError."""
        if not 0 < self.roulette <= 1:
            raise ProgipError(
                f"sampling.roulette={self.roulette:g}: give a probability above 0 and at most 1"
            )
        if self.roulette_pilot < 100:
            raise ProgipError(
                f"sampling.roulette_pilot={self.roulette_pilot}: too few to learn from; give 100 "
                "runs"
            )

    @property
    def whole_runs(self) -> int:
        """The first runs, before which is learnt what is planned later; all are executed whole."""
        pilot = self.pilot_runs
        return pilot if self.roulette == 1 else max(pilot, self.roulette_pilot)

    def size(self, space: FaultSpace) -> int | None:
        """Runs of a cell where the plan says how many; None: the cell's own number."""
        return None

    @abstractmethod
    def plan(
        self,
        space: FaultSpace,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        """The planned faults of runs start..stop-1, schema ``records.PLAN``.

        Row i depends on (seed, key, i), the options of plan and fault model, and, for runs from
        ``pilot_runs`` on, on the pilot. ``weight`` is the fault model's probability of the row's
        stratum or site and bit over the one it was drawn with.

        Args:
            pilot: what the first ``pilot_runs`` runs showed; needed for stop > ``pilot_runs``.
        """

    def shares(self, space: FaultSpace) -> np.ndarray:
        """(H,) probability of each stratum under the fault model; (1,) for a plan without strata.

        Raises:
            ProgipError: a stratum has no site.
        """
        return np.ones(1)

    def describe(self, space: FaultSpace, pilot: Pilot | None) -> dict[str, Any]:
        """For the manifest: what is needed to estimate from the rows, and to write the plan up."""
        return {"name": self.name, "strata": []}


def planned(
    atoms: Atoms,
    runs: np.ndarray,
    images: np.ndarray,
    atom: np.ndarray,
    neuron: np.ndarray,
    weight: np.ndarray,
    stratum: np.ndarray,
) -> pa.Table:
    """A ``records.PLAN`` table of chosen images, atoms and neurons.

    All arguments but atoms: (rows,).
    """
    site = atoms.site[atom]
    sites = atoms.sites
    return pa.table(
        {
            "run_id": runs,
            "sample_index": images.astype(np.int32),
            "layer": np.array([s.layer for s in sites], dtype=object)[site],
            "call": np.array([s.call for s in sites], dtype=np.int16)[site],
            "neuron": neuron,
            "bit": atoms.bit[atom],
            "weight": weight,
            "stratum": stratum.astype(np.int32),
        },
        schema=records.PLAN,
    )
