"""Faults at a rate: every neuron of the chosen layers is hit with the same small probability."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.base import Hits, Site, unnamed
from progip.fault_models.layers import InLayers
from progip.fault_models.random import RunStreams, run_streams
from progip.number_formats.base import NumberFormat

NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
GAPS, MASKS = 1, 2  # streams of a run
BLOCK = 1 << 20  # random numbers held at once


@dataclass(kw_only=True)
class AtRate(InLayers):
    """Every neuron of every chosen layer is hit independently, with probability ``rate`` a run.

    The fault model of Amarnath et al. (ML Safety workshop, NeurIPS 2022): errors in the outputs of
    multiply-accumulates, before normalisation and activation. Runs take the evaluation images in
    turn: run i is image i modulo the number of images, so that each round over all images is one
    fault map. What happens to a hit value is up to the subclass.

    Hits are found by the gaps between them, which follow the geometric law of a row of Bernoulli
    trials: the work is that of the hits, however many neurons there are and however small the rate.

    Attributes:
        rate: probability that a neuron is hit in a run, 0 to 1; 0 is the fault-free network.
    """

    rate: float = 1e-5

    many: ClassVar[bool] = True
    #: uniform numbers that ``_masks`` needs for each hit
    draws: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ProgipError(
                f"fault_model '{self.name}': rate={self.rate} is not a probability; give the share "
                "of neurons that are hit in a run, 0 to 1"
            )

    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """As in the base class; ``hits`` says what each run's number of hits and neurons are."""
        runs = np.arange(start, stop, dtype=np.int64)
        return unnamed(runs, runs % images)

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """The hits of each planned run, from (seed, key, run_id) alone; neurons in order."""
        runs = plan["run_id"].to_numpy()
        ends = np.cumsum([site.neurons for site in sites], dtype=np.int64)
        streams = run_streams(seed, key)
        step = max(1, BLOCK // self._enough(int(ends[-1])))
        parts = [
            self._positions(streams, runs[i : i + step], int(ends[-1]), i)
            for i in range(0, len(runs), step)
        ]
        row, flat = (np.concatenate(p) for p in zip(*parts, strict=True)) if parts else NOTHING
        counts = np.bincount(row, minlength=len(runs))
        numbers = streams.uniforms(runs.tolist(), MASKS, (counts * self.draws).tolist())
        mask = self._masks(numbers.reshape(-1, self.draws), sites[0].format)
        site = np.searchsorted(ends, flat, side="right")
        return Hits(row, site, flat - np.concatenate([[0], ends])[site], mask)

    def _enough(self, neurons: int) -> int:
        """Gaps after which a run has almost surely passed its last neuron."""
        expected = self.rate * neurons
        return int(expected + 8 * expected**0.5) + 16

    def _positions(
        self, streams: RunStreams, runs: np.ndarray, neurons: int, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows, counted from ``first``, and flat positions of the hits of some runs."""
        if self.rate == 0:
            return NOTHING
        count = self._enough(neurons)
        while True:
            drawn = streams.uniforms(runs.tolist(), GAPS, [count] * len(runs))
            with np.errstate(divide="ignore"):  # rate 1: no gaps
                gaps = np.log1p(-drawn.reshape(-1, count)) / np.log1p(-self.rate)
            steps = np.minimum(gaps, neurons).astype(np.int64) + 1
            positions = np.cumsum(steps, axis=1) - 1
            if (positions[:, -1] >= neurons).all():
                row, column = np.nonzero(positions < neurons)
                return row + first, positions[row, column]
            count *= 2  # from the start: the same numbers, and more of them

    @abstractmethod
    def _masks(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        """The bits to flip, uint32 (hits,), from uniform numbers (hits, ``draws``).

        Args:
            number_format: of the values.
        """
