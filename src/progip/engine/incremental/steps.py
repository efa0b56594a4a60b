"""One operation of a propagation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from progip.engine.incremental.graph import Layout

TRIAL, RARE = 512, 100  # rows to try; leave off comparing where fewer than one in so many leaves


@dataclass
class Step:
    """One operation of a propagation.

    Attributes:
        node: whose value it makes.
        inputs: the nodes it reads, aliases resolved.
        function: from the values of ``inputs`` to the value.
        compare: whether rows that equal golden leave here.
        site: whether faults can hit here.
        writable: the input's memory belongs to this step alone.
        reads: constants that faults can change (parameters and what is made of them alone).
        rebuilt: gives the function with other values of such constants.
        seen, left: rows compared so far, and how many of them equalled golden.
    """

    node: int
    inputs: tuple[int, ...]
    function: Callable[[list[Any]], Any]
    layout: Layout | None
    compare: bool = False
    site: bool = False
    writable: bool = False
    reads: tuple[int, ...] = ()
    rebuilt: Callable[[Mapping[int, Any]], Callable[[list[Any]], Any]] | None = None
    seen: int = 0
    left: int = 0

    @property
    def worthwhile(self) -> bool:
        """Whether rows leave here often enough to go on comparing; costs time only, no outcome."""
        return self.seen < TRIAL or self.left * RARE > self.seen
