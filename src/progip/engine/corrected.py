"""Observes a network with a correcting protection: what it found, and whether a fault was there."""

from collections.abc import Container, Sequence
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


class Places(NamedTuple):
    """Where the hits of some rows arrive: values of corrected calls, in the pass that was hit.

    Attributes:
        calls: the corrected calls.
        call: (places,) number in ``calls``.
        hit: (places,) number of the hit whose value it is.
        position: (places,) in a row of the call's output, flat, channels first.
    """

    calls: list[Call]
    call: np.ndarray
    hit: np.ndarray
    position: np.ndarray

    def scores(self, hits: Hits, corrected: np.ndarray, rows: int) -> Scores:
        """How well corrections met hits.

        Args:
            hits: whose places these are.
            corrected: (places,) bool, whether the value there was corrected.
            rows: that were executed.
        """
        caught = np.unique(self.hit[corrected])
        places = np.stack([hits.row[self.hit], self.call, self.position], 1)[corrected]
        return Scores(
            np.bincount(np.unique(places, axis=0)[:, 0], minlength=rows),
            np.bincount(hits.row[caught], minlength=rows).astype(np.int32),
        )


class CorrectedPipeline(Pipeline):
    """A pipeline around a network that ``Correcting.protect`` made.

    Args:
        network: the protected one.
        plain: the one it was made from.

    Attributes:
        watched: the forward passes whose corrected values are kept, to be compared with hits.
        masks: of the last execution, by watched pass and corrected call: (B, *shape of one row)
            bool, which values of the output were corrected.
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
        self.watched: Container[str] = ()
        self.masks: dict[tuple[str, Call], Tensor] = {}
        self._plain = plain
        self._paths: dict[tuple[Call, ...], list[list[Path]]] = {}

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        found: list[dict[str, Tensor]] = []
        current = ""
        self.masks = {}

        def leave() -> None:
            if is_forward(current):
                found.append(protected_evidence(self.network))
            if is_forward(current) and current in self.watched:
                for call, mask in corrected_masks(self.network).items():
                    self.masks[current, call] = mask

        def enter_pass(name: str) -> None:
            nonlocal current
            leave()
            current = name
            keep_masks(self.network, name in self.watched)
            enter(name)

        observation = super().__call__(images, enter_pass)
        leave()
        keep_masks(self.network, False)
        flagged, corrected = found[0]["flagged"], found[0]["zeroed"]
        for evidence in found[1:]:
            flagged, corrected = flagged | evidence["flagged"], corrected + evidence["zeroed"]
        return replace(observation, flagged=flagged, corrected=corrected)

    def places(self, sites: list[Site], hits: Hits, calls: Sequence[Call], image: Tensor) -> Places:
        """Where hits arrive: the values to be compared with what was corrected.

        A value is hit if a bit of it was flipped, or if it takes over the value of a flipped one
        element by element, through normalisation, addition, concatenation or an activation.

        Args:
            sites: that ``hits`` refers to.
            calls: that are corrected in the pass that was hit; none if it is no forward pass.
            image: (1, channels, height, width), any.
        """
        found: list[np.ndarray] = [np.zeros((3, 0), dtype=np.int64)]
        if calls:
            key = tuple(site.key for site in sites)
            if key not in self._paths:
                self._paths[key] = find_paths(self._plain, sites, list(calls), image)
            for site in np.unique(hits.site).tolist():
                members = np.flatnonzero(hits.site == site)
                for path in self._paths[key][site]:
                    number = np.full(len(members), calls.index(path.call))
                    found.append(np.stack([number, members, hits.neuron[members] + path.offset]))
        return Places(list(calls), *np.concatenate(found, 1))

    def scores(self, sites: list[Site], hits: Hits, images: Tensor) -> Scores:
        """Compare what the last execution, of these images, corrected with its hits.

        Args:
            sites: that ``hits`` refers to.
            images: of the batch.
        """
        masks = {call: mask for (_, call), mask in self.masks.items()}
        places = self.places(sites, hits, list(masks), images[:1])
        corrected = np.zeros(len(places.hit), dtype=bool)
        for number in np.unique(places.call).tolist():
            chosen = places.call == number
            row = hits.row[places.hit[chosen]]
            corrected[chosen] = _at(masks[places.calls[number]], row, places.position[chosen])
        return places.scores(hits, corrected, len(images))


def _at(mask: Tensor, row: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Elements of (n, *shape) by row and flat position, channels first."""
    index = (row, *np.unravel_index(position, tuple(mask.shape[1:])))
    found: np.ndarray = mask[index].cpu().numpy()
    return found
