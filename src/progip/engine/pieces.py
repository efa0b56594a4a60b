"""Executors give what they measured piece by piece, so that whoever asked can count, and stop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable

import numpy as np
import pyarrow as pa

from progip.fault_models.base import Hits

Columns = dict[str, np.ndarray]
#: the hits of some planned runs (``records.PLAN``)
Draw = Callable[[pa.Table], Hits]
#: positions in the plan of the runs of a piece, and what was measured of them
Piece = tuple[np.ndarray, Columns]


class ByPieces(ABC):
    """An executor of planned runs.

    Attributes:
        golden_seconds: spent on golden values since ``pieces`` was last begun.
    """

    golden_seconds: float = 0.0

    @abstractmethod
    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN``) in an order of the executor's own.

        A generator that is closed early executes no more; what it gave until then is as it would
        have been.

        Raises:
            RuntimeError: a planned fault did not fire exactly once.
        """

    def run(self, plan: pa.Table) -> Columns:
        """Execute every row of a plan.

        Returns:
            one array per column, in the order of the plan.
        """
        return joined(self.pieces(plan))[1]


def joined(pieces: Iterable[Piece]) -> Piece:
    """All pieces as one, in the order of the plan."""
    parts = list(pieces)
    positions = np.concatenate([part[0] for part in parts])
    order = np.argsort(positions, kind="stable")
    names = parts[0][1]
    return positions[order], {
        name: np.concatenate([columns[name] for _, columns in parts])[order] for name in names
    }
