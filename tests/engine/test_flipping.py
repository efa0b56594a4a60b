"""Flips in a batch against NumPy's exclusive or, whatever the memory order of the tensors."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from progip.batch_axis import BatchAxis
from progip.engine.flipping import BatchFaults
from progip.fault_models.base import Hits, Site

BATCH = 5
SITES = [
    Site("conv", 0, "Conv2d", (3, 4, 2), 24, 0, fresh=True),
    Site("fc", 0, "Linear", (7,), 7, 0, fresh=True),
    Site("window", 0, "ReLU", (2, 6), 12, 0, axis=BatchAxis(group=2)),  # (B * 2, 6)
    Site("crops", 0, "ReLU", (2, 6), 12, 0, axis=BatchAxis(outer=2)),  # (2 * B, 6)
    Site("tokens", 0, "Linear", (4, 6), 24, 0, axis=BatchAxis(1)),  # (4, B, 6)
    Site("both", 0, "ReLU", (2, 2, 3, 2), 24, 0, axis=BatchAxis(1, 2, 3)),  # (2, 2 * B * 3, 2)
]
SHAPES = [
    (BATCH, 3, 4, 2), (BATCH, 7), (2 * BATCH, 6), (2 * BATCH, 6), (4, BATCH, 6), (2, 6 * BATCH, 2)
]  # fmt: skip


def rows(values: np.ndarray, layer: str) -> np.ndarray:
    """A copy with one sample's values in a row, by NumPy alone."""
    if layer == "crops":
        values = values.reshape(2, BATCH, 6).transpose(1, 0, 2)
    elif layer == "tokens":
        values = values.transpose(1, 0, 2)
    elif layer == "both":
        values = values.reshape(2, 2, BATCH, 3, 2).transpose(2, 0, 1, 3, 4)
    return np.ascontiguousarray(values).reshape(BATCH, -1).copy()


def drawn(random: np.random.Generator, count: int) -> Hits:
    """Distinct values of the sites, ascending by row."""
    ends = np.cumsum([site.neurons for site in SITES])
    flat = np.sort(random.choice(BATCH * ends[-1], count, replace=False))
    row, place = flat // ends[-1], flat % ends[-1]
    site = np.searchsorted(ends, place, side="right")
    mask = random.integers(0, 2**32, count, dtype=np.uint32)
    return Hits(row, site, place - np.concatenate([[0], ends])[site], mask)


def expected(values: np.ndarray, number: int, hits: Hits) -> np.ndarray:
    bits = rows(values, SITES[number].layer).view(np.uint32)
    here = hits.site == number
    bits[hits.row[here], hits.neuron[here]] ^= hits.mask[here]
    return bits


@given(
    seed=st.integers(0, 2**32 - 1),
    batches=st.lists(
        st.tuples(st.integers(0, 60), st.booleans(), st.booleans()), min_size=1, max_size=4
    ),
)
@settings(max_examples=60, deadline=None)
def test_every_planned_bit_and_no_other(seed: int, batches: list) -> None:
    """The memory order may change from one batch to the next, and a tensor lie inside another."""
    random = np.random.default_rng(seed)
    for fault_pass in ("first_forward", "backward"):
        faults = BatchFaults(SITES, BATCH, fault_pass, torch.device("cpu"))
        for count, channels_last, inside in batches:
            hits = drawn(random, count)
            faults.prepare(hits)
            for number, (site, shape) in enumerate(zip(SITES, SHAPES, strict=True)):
                values = random.standard_normal(shape).astype(np.float32)
                tensor = placed(values, channels_last, inside)
                assert (site.key in faults) == bool((hits.site == number).any())
                if site.key not in faults:
                    continue
                flipped = faults.flip(site.key, tensor)
                bits = rows(flipped.numpy(), site.layer).view(np.uint32)
                np.testing.assert_array_equal(bits, expected(values, number, hits))
                if not site.fresh or fault_pass == "backward":  # others may read it
                    np.testing.assert_array_equal(tensor.numpy(), values)
            planned = np.bincount(hits.row, minlength=BATCH)
            np.testing.assert_array_equal(faults.fired(BATCH), planned)


def placed(values: np.ndarray, channels_last: bool, inside: bool) -> Tensor:
    """These values, in either memory order, perhaps as a part of a larger tensor."""
    tensor = torch.from_numpy(values.copy())
    if inside:
        larger = torch.zeros(len(values), values.shape[1] + 2, *values.shape[2:])
        larger[:, 1:-1] = tensor
        tensor = larger[:, 1:-1]
    if channels_last and values.ndim == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor
