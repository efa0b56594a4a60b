"""The exponents of the fault-free values at every site of a pass, for plans that go by them."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progip.engine.flipping import BatchFaults
from progip.engine.reference import ReferenceExecutor
from progip.models.calls import Call
from progip.sampling.change import CODES, codes_of, scale_of


class CleanValues:
    """Codes (``progip.sampling.change``) of every image's values at the sites of one pass.

    All images are executed once, fault-free, and counted. Which neuron has a value of a code is
    looked up when a fault is drawn: in the codes, where they are small enough to be kept (a byte a
    value), else by executing the images in question again.

    Args:
        reference: of this pass; its sites give every axis of sites here their order.
        memory: bytes that kept codes may take.

    Attributes:
        scale: (sites,) biased exponent of each site's large values, in the first batch of images.
        counts: (sites, CODES, images) int32, values of each code.
    """

    def __init__(self, reference: ReferenceExecutor, memory: int = 2**29) -> None:
        sites, count = reference.sites, len(reference.images)
        self._reference = reference
        self._looks = _Looks(
            sites, reference.batch_size, reference.fault_pass, reference.images.device
        )
        self._ends = np.cumsum([0, *(site.neurons for site in sites)])
        values = int(self._ends[-1])
        self._kept: NDArray[np.uint8] | None = None
        if count * values <= memory:
            self._kept = np.empty((count, values), dtype=np.uint8)
        self.scale = np.zeros(len(sites), dtype=np.int64)
        self.counts = np.zeros((len(sites), CODES, count), dtype=np.int32)
        for batch, exponents in self._exponents(np.arange(count)):
            if batch[0] == 0:
                self.scale[:] = [scale_of(part) for part in self._parts(exponents)]
            codes = self._codes(exponents)
            for number, part in enumerate(self._parts(codes)):
                place = part + CODES * np.arange(len(batch), dtype=np.int32)[:, None]
                seen = np.bincount(place.ravel(), minlength=CODES * len(batch))
                self.counts[number][:, batch] = seen.reshape(len(batch), CODES).T
            if self._kept is not None:
                self._kept[batch] = codes

    def neurons(
        self, image: NDArray, site: NDArray, code: NDArray, rank: NDArray
    ) -> NDArray[np.int64]:
        """The flat index of the rank-th value of a code at a site of an image; all (rows,)."""
        found = np.empty(len(image), dtype=np.int64)
        wanted, where = np.unique(image, return_inverse=True)
        for batch, codes in self._looked_up(wanted):
            place = np.searchsorted(wanted, batch)
            for row in np.flatnonzero((where >= place[0]) & (where <= place[-1])):
                number = site[row]
                values = codes[where[row] - place[0], self._ends[number] : self._ends[number + 1]]
                found[row] = np.flatnonzero(values == code[row])[rank[row]]
        return found

    def _looked_up(self, wanted: NDArray) -> Iterator[tuple[NDArray, NDArray[np.uint8]]]:
        if self._kept is not None:
            yield wanted, self._kept[wanted]
            return
        for batch, exponents in self._exponents(wanted):
            yield batch, self._codes(exponents)

    def _exponents(self, wanted: NDArray) -> Iterator[tuple[NDArray, NDArray[np.uint8]]]:
        """Biased exponents (images, neurons of all sites) of the wanted images, in batches."""
        for start in range(0, len(wanted), self._reference.batch_size):
            batch = wanted[start : start + self._reference.batch_size]
            seen = self._looks.seen = dict.fromkeys(s.key for s in self._reference.sites)
            self._reference.execute(batch, self._looks)
            parts = [values[: len(batch)] for values in seen.values() if values is not None]
            if len(parts) < len(seen):
                missing = next(layer for (layer, _), values in seen.items() if values is None)
                raise RuntimeError(f"no value was seen at layer '{missing}'")
            yield batch, np.concatenate(parts, axis=1)

    def _parts(self, values: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        return np.split(values, self._ends[1:-1], axis=1)

    def _codes(self, exponents: NDArray[np.uint8]) -> NDArray[np.uint8]:
        parts = zip(self._parts(exponents), self.scale, strict=True)
        return np.concatenate([codes_of(part, int(scale)) for part, scale in parts], axis=1)


class _Looks(BatchFaults):
    """Looks where hits would be flipped, so it sees the values that a fault meets.

    Attributes:
        seen: by site, biased exponents (batch, neurons).
    """

    seen: dict[Call, NDArray[np.uint8] | None]

    def __contains__(self, key: Call) -> bool:
        return key in self.seen

    def flip(self, key: Call, tensor: Tensor) -> Tensor:
        bits = self._rows(key, tensor.detach().view(torch.int32))
        exponents = (bits >> 23).bitwise_and(0xFF).to(torch.uint8)
        self.seen[key] = exponents.reshape(self.batch_size, -1).cpu().numpy()
        return tensor
