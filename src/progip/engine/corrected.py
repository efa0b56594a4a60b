"""Observes a network with a correcting protection: what it found, and whether a fault was there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from progip.engine.paths import Path, find_paths
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.fault_models.base import Hits, Site
from progip.models.calls import Call
from progip.ood_methods.base import EnterPass, OODMethod, no_pass
from progip.passes import is_forward
from progip.probes import Observation, Probe
from progip.probes.corrections import CorrectionProbe
from progip.protections.correcting import corrected_masks, keep_masks, protected_evidence

#: the columns of ``Scores``, of the pass that was hit, if that is a forward pass
SCORES = (
    pa.field("corrected_hit", pa.int64()),  # changed values that a fault had hit
    pa.field("hits_corrected", pa.int32()),  # hits that were corrected in at least one place
)


class Scores(NamedTuple):
    """How well corrections met hits, for each of n rows.

    Attributes:
        corrected_hit: (n,) int64, corrected values that were hit.
        hits_corrected: (n,) int32, hits that were corrected in at least one place.
    """

    corrected_hit: np.ndarray
    hits_corrected: np.ndarray


class CorrectedPipeline(Pipeline):
    """A pipeline around a network that ``Correcting.protect`` made.

    Args:
        network: the protected one.
        plain: the one it was made from.

    Attributes:
        watched: the forward pass whose corrected values are kept, to be compared with the hits;
            "" for none.
    """

    def __init__(
        self,
        network: nn.Module,
        method: OODMethod,
        ranges: RangeTable,
        plain: nn.Module,
        probes: Sequence[Probe] = (),
    ) -> None:
        super().__init__(network, method, ranges, [CorrectionProbe(), *probes])
        self.watched = ""
        self._plain = plain
        self._masks: dict[Call, Tensor] = {}
        self._paths: dict[tuple[Call, ...], list[list[Path]]] = {}

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        found: list[dict[str, Tensor]] = []
        current = ""
        self._masks = {}

        def leave() -> None:
            if is_forward(current):
                found.append(protected_evidence(self.network))
            if current and current == self.watched:
                self._masks = corrected_masks(self.network)

        def enter_pass(name: str) -> None:
            nonlocal current
            leave()
            current = name
            keep_masks(self.network, name == self.watched)
            enter(name)

        observation = super().__call__(images, enter_pass)
        leave()
        keep_masks(self.network, False)
        flagged, corrected = found[0]["flagged"], found[0]["zeroed"]
        for evidence in found[1:]:
            flagged, corrected = flagged | evidence["flagged"], corrected + evidence["zeroed"]
        return replace(observation, flagged=flagged, corrected=corrected)

    def scores(self, sites: list[Site], hits: Hits, images: Tensor) -> Scores:
        """Compare the corrections of the watched pass with the hits of the same batch.

        A value is hit if a bit of it was flipped, or if it takes over the value of a flipped one
        element by element, through normalisation, addition, concatenation or an activation.

        Args:
            sites: that ``hits`` refers to.
            images: of the batch.
        """
        caught = np.zeros(len(hits.row), dtype=bool)
        places: list[np.ndarray] = []  # (row, number of the call, position) of corrected hits
        if self._masks:
            calls = list(self._masks)
            key = tuple(site.key for site in sites)
            if key not in self._paths:
                self._paths[key] = find_paths(self._plain, sites, calls, images[:1])
            for site in np.unique(hits.site).tolist():
                members = np.flatnonzero(hits.site == site)
                for path in self._paths[key][site]:
                    at = (hits.row[members], hits.neuron[members] + path.offset)
                    found = _at(self._masks[path.call], *at)
                    caught[members] |= found
                    number = np.full(len(members), calls.index(path.call))
                    places.append(np.stack([at[0], number, at[1]], 1)[found])
        rows = len(images)
        right = np.unique(np.concatenate(places), axis=0)[:, 0] if places else np.zeros(0, np.int64)
        return Scores(
            np.bincount(right, minlength=rows),
            np.bincount(hits.row[caught], minlength=rows).astype(np.int32),
        )


def _at(mask: Tensor, row: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Elements of (n, *shape) by row and flat position, channels first."""
    index = (row, *np.unravel_index(position, tuple(mask.shape[1:])))
    found: np.ndarray = mask[index].cpu().numpy()
    return found
