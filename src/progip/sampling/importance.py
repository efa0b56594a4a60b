"""Likely culprits drawn more often, and weighted back: importance sampling."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from progip.errors import ProgipError
from progip.fault_models.base import Atoms
from progip.fault_models.random import integers, uniforms
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan, planned


@dataclass(kw_only=True)
class Importance(SamplingPlan):
    """Draws site and bit from q = (1 - defensive) q' + defensive pi, q' being pi times the odds.

    pi is the law of the fault model. The weight pi / q of a row is at most 1 / defensive, whatever
    the odds (defensive mixture: Hesterberg, Technometrics 37, 1995); log q = log pi - log weight.

    Attributes:
        bit_odds: bit -> how much likelier than its fault model says; others 1. One at least must
            be of a bit that the fault model hits.
        layer_odds: regular expression of layer names -> the same; the first that fits counts.
        defensive: share of the fault model's own law in the mixture.
    """

    sentence: ClassVar[str] = (
        "Likely culprits are drawn more often than the fault model says, and weighted back, "
        "under a defensive mixture [Hesterberg]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Hesterberg": "Hesterberg: Weighted average importance sampling and defensive mixture "
        "distributions. Technometrics 37, 1995, 185-194.",
    }

    bit_odds: dict[int, float] = field(default_factory=dict)
    layer_odds: dict[str, float] = field(default_factory=dict)
    defensive: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.defensive <= 1:
            raise ProgipError(
                f"sampling.defensive={self.defensive}: give a share above 0 and at most 1"
            )
        for name, odds in (*self.bit_odds.items(), *self.layer_odds.items()):
            if not 0 <= odds < math.inf:
                raise ProgipError(f"sampling: the odds of {name} are {odds}; give 0 or more")

    def probabilities(self, atoms: Atoms) -> np.ndarray:
        """q of every atom, (A,). Raises ProgipError for odds of a bit or layer that is not hit."""
        odds = np.ones(len(atoms.bit))
        absent = sorted(set(self.bit_odds) - set(atoms.bit.tolist()))
        if absent and len(absent) == len(
            self.bit_odds
        ):  # some: fault_model.bits may leave bits out
            raise ProgipError(f"sampling.bit_odds: the fault model never hits bit {absent[0]}")
        for bit, factor in self.bit_odds.items():
            odds[atoms.bit == bit] *= factor
        free = np.ones(len(atoms.sites), dtype=bool)
        for pattern, factor in self.layer_odds.items():
            try:
                fits = np.array([bool(re.fullmatch(pattern, s.layer)) for s in atoms.sites])
            except re.error as error:
                raise ProgipError(
                    f"sampling.layer_odds: {pattern!r} is not a regular expression: {error}"
                ) from error
            if not fits.any():
                raise ProgipError(
                    f"sampling.layer_odds: {pattern!r} is a stratum without sites; there are "
                    + ", ".join(dict.fromkeys(s.layer for s in atoms.sites))
                )
            odds[(fits & free)[atoms.site]] *= factor
            free &= ~fits
        favoured = atoms.probability * odds
        if favoured.sum() == 0:
            raise ProgipError("sampling: every odds is 0; leave some above 0")
        return (1 - self.defensive) * favoured / favoured.sum() + self.defensive * atoms.probability

    def plan(
        self,
        space: FaultSpace,
        seed: int,
        key: str,
        start: int,
        stop: int,
        pilot: Pilot | None = None,
    ) -> pa.Table:
        atoms = space.atoms
        q = self.probabilities(atoms)
        u = uniforms(seed, key, start, stop)
        ends = np.cumsum(q)
        atom = np.minimum(np.searchsorted(ends, u[:, 1] * ends[-1], side="right"), len(q) - 1)
        return planned(
            atoms,
            np.arange(start, stop, dtype=np.int64),
            integers(u[:, 0], len(space.correct)),
            atom,
            integers(u[:, 2], space.neurons[atoms.site[atom]]),
            (atoms.probability / q)[atom],
            np.zeros(stop - start),
        )
