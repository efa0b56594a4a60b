"""Flips the planned bits of one batch in the tensors that its execution computes."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from progip.fault_models.base import Hits, Site
from progip.models.calls import Call
from progip.number_formats.codes import registers, spread
from progip.passes import is_backward

NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class _Planned:
    """The hits of one tensor, each array (hits,).

    Attributes:
        rows: of the batch.
        neurons: flat positions in one row, channels first.
        masks: int32, the bits to flip.
        clears: int32, the bits to clear before; None for none.
        places: where the values lie in memory, for the strides that the tensor had last.
    """

    rows: np.ndarray
    neurons: np.ndarray
    masks: Tensor
    clears: Tensor | None
    places: Tensor


class BatchFaults:
    """The hits of a batch, each flipped when its tensor comes by.

    Args:
        sites: that hits name.
        batch_size: rows of a batch.
        fault_pass: that the tensors are computed in.
        device: of the tensors.
    """

    def __init__(
        self, sites: list[Site], batch_size: int, fault_pass: str, device: torch.device
    ) -> None:
        self._sites = sites
        self.batch_size = batch_size
        self._device = device
        self._formats = {site.key: site.format for site in sites}
        self._registers = {site.key for site in sites if site.of_metadata}
        self._shapes = {site.key: site.shape for site in sites}
        self._axes = {site.key: site.axis for site in sites}
        self._fresh = {site.key for site in sites if site.fresh and not is_backward(fault_pass)}
        self._strides: dict[Call, tuple[int, ...]] = {}  # as last seen
        self._planned: dict[Call, _Planned] = {}
        self._fired: list[tuple[np.ndarray, Tensor, Tensor]] = []

    def prepare(self, hits: Hits) -> None:
        """Take the hits of the next batch, and forget the last one's."""
        self._planned.clear()
        self._fired.clear()
        order = np.argsort(hits.site, kind="stable")
        rows, neurons = hits.row[order], hits.neuron[order]
        sites, starts = np.unique(hits.site[order], return_index=True)
        keys = [self._sites[site].key for site in sites.tolist()]
        parts = [slice(a, b) for a, b in pairwise((*starts.tolist(), len(order)))]
        # of a first batch, whose strides are not known, flip finds the places
        places = [
            self._places(key, rows[part], neurons[part]) if key in self._strides else rows[part]
            for key, part in zip(keys, parts, strict=True)
        ]
        # to the device in one go
        memory = torch.from_numpy(np.concatenate([NONE, *places])).to(self._device)
        masks = self._words(hits.mask, order)
        clears = None if hits.clear is None else self._words(hits.clear, order)
        for key, part in zip(keys, parts, strict=True):
            cleared = None if clears is None else clears[part]
            self._planned[key] = _Planned(
                rows[part], neurons[part], masks[part], cleared, memory[part]
            )

    def _words(self, words: np.ndarray, order: np.ndarray) -> Tensor:
        return torch.from_numpy(words.view(np.int32)[order]).to(self._device)

    def __contains__(self, key: Call) -> bool:
        return key in self._planned

    def flip(self, key: Call, tensor: Tensor) -> Tensor:
        """The tensor with its hits, itself where nobody else reads it, else a copy."""
        planned = self._planned[key]
        # what a convolution made without a gradient nobody else reads; other outputs may be views
        alone = key in self._fresh and not tensor.requires_grad
        flipped = tensor if alone else tensor.clone()
        values = self._rows(key, flipped.detach())  # no step that autograd would follow
        if key in self._registers:
            self._fired.append((planned.rows, *self._in_registers(key, values, planned)))
            return flipped
        strides, places = values.stride(), planned.places
        if self._strides.get(key) != strides:
            self._strides[key] = strides
            found = self._places(key, planned.rows, planned.neurons)
            places = torch.from_numpy(found).to(self._device)
        span = 1 + sum((n - 1) * step for n, step in zip(values.shape, strides, strict=True))
        memory = values.as_strided((span,), (1,))
        code, before = self._formats[key], memory[places]
        metadata = registers(code, values, planned.rows, planned.neurons)
        codes = code.encode(before, metadata)
        kept = codes if planned.clears is None else codes & ~planned.clears
        after = code.decode(kept ^ planned.masks, metadata)
        memory[places] = after
        self._fired.append((planned.rows, before, after))
        return flipped

    def _in_registers(self, key: Call, values: Tensor, planned: _Planned) -> tuple[Tensor, Tensor]:
        """Decode the rows of a tensor with what a fault makes of their metadata.

        Returns:
            what each register that is hit stands for, before and after.
        """
        code = self._formats[key]
        rows = torch.from_numpy(planned.rows).to(values.device)
        hit = values[rows]
        metadata = code.metadata(hit)
        assert metadata is not None
        where = (torch.arange(len(rows)), torch.from_numpy(planned.neurons))
        faulty = metadata.clone()
        faulty[where] ^= planned.masks
        codes = code.encode(hit, spread(metadata, hit))
        values[rows] = code.decode(codes, spread(faulty, hit))
        return code.metadata_values(metadata[where]), code.metadata_values(faulty[where])

    def _rows(self, key: Call, tensor: Tensor) -> Tensor:
        """A view of a site's tensor with the samples in front.

        Raises:
            RuntimeError: it has another shape than when the sites were found.
        """
        rows = self._axes[key].rows(tensor)
        if key in self._registers:
            return rows
        if tuple(rows.shape) != (self.batch_size, *self._shapes[key]):
            raise RuntimeError(
                f"layer '{key[0]}' call {key[1]} computed {tuple(rows.shape)} instead of "
                f"{(self.batch_size, *self._shapes[key])}; nothing of this batch was written"
            )
        return rows

    def fired(self, rows: int) -> np.ndarray:
        """(rows,) how many hits of each row have been flipped."""
        return np.bincount(np.concatenate([NONE, *(r for r, _, _ in self._fired)]), minlength=rows)

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Each flipped value before and after, float32, by row."""
        order = np.argsort(np.concatenate([rows for rows, _, _ in self._fired]))
        before, after = (
            torch.cat(values).cpu().numpy()[order]
            for values in list(zip(*self._fired, strict=True))[1:]
        )
        return before, after

    def _places(self, key: Call, rows: np.ndarray, neurons: np.ndarray) -> np.ndarray:
        """Where values lie in the memory of a batch, channels first or last."""
        where = np.unravel_index(neurons, self._shapes[key])
        places: np.ndarray = np.dot(self._strides[key], (rows, *where))
        return places
