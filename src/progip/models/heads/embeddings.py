"""Rows that a text-guided head starts from: of a file, or random ones of the same kind."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.models.weight_files import read_tensor

log = logging.getLogger(__name__)

UNIT = 1e-4  # how far from 1 the length of a row may be and still be called 1


def random_rows(classes: int, width: int, mean_cosine: float) -> Tensor:
    """(classes, width) unit rows whose cosines with one another are ``mean_cosine`` on average.

    Each is sqrt(c) m + sqrt(1 - c) g of one shared unit vector m and a unit vector g of its own at
    right angles to m, both uniform in direction: a cosine is c + (1 - c) g_i g_j. Drawn from the
    global generator of torch.
    """
    shared = torch.nn.functional.normalize(torch.randn(width), dim=0)
    own = torch.randn(classes, width)
    own = torch.nn.functional.normalize(own - (own @ shared)[:, None] * shared, dim=1)
    return math.sqrt(mean_cosine) * shared + math.sqrt(1 - mean_cosine) * own


def file_rows(path: Path, classes: int, width: int, rows: Sequence[int] | None = None) -> Tensor:
    """(classes, width) unit rows of a file; row i is class i's, in the order of the labels.

    Args:
        path: ``.npy``, ``.safetensors`` or what ``torch.save`` wrote, with one tensor (C, E).
        rows: the file's row of each class; -1 where it has none (the row is NaN then). None: the
            file has one row a class, in their order.

    Raises:
        ProgipError: where the file is no such tensor, has another shape, rows that do not exist,
            values that are not finite, or a row of zeros.
    """
    found = read_tensor(path)
    if found.dim() != 2 or not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise ProgipError(
            f"{path}: embeddings are one tensor (classes, width) of floating-point numbers, not "
            f"{kind} {tuple(found.shape)}"
        )
    if found.shape[1] != width:
        raise ProgipError(
            f"{path}: embeddings of width {found.shape[1]}, but model.head.width is {width}; make "
            "them the same"
        )
    if rows is None and len(found) != classes:
        raise ProgipError(
            f"{path}: {len(found)} embeddings for {classes} classes. Row i is class i's; where the "
            "file is of other classes, say which row is whose: model.head.rows=[ROW OF CLASS 0, "
            "...], -1 for a class it lacks"
        )
    chosen = list(range(classes)) if rows is None else list(rows)
    if len(chosen) != classes or any(not -1 <= row < len(found) for row in chosen):
        raise ProgipError(
            f"model.head.rows must name {classes} rows of the {len(found)} of {path}, or -1: it "
            f"has {len(chosen)}, from {min(chosen, default=0)} to {max(chosen, default=0)}"
        )
    taken = found[torch.tensor([max(row, 0) for row in chosen])].float()
    absent = torch.tensor([row < 0 for row in chosen])
    lengths = taken.norm(dim=1)
    for what, wrong in (
        ("holds NaN or infinity", ~torch.isfinite(lengths)),
        ("is zero, which has no direction", lengths == 0),
    ):
        if bool((wrong & ~absent).any()):
            place = int(np.flatnonzero((wrong & ~absent).numpy())[0])
            raise ProgipError(f"{path}: row {chosen[place]}, of class {place}, {what}")
    known = lengths[~absent]
    if len(known) and float((known - 1).abs().max()) > UNIT:
        log.info(
            "%s: rows of length %.4g to %.4g, brought to length 1",
            path,
            float(known.min()),
            float(known.max()),
        )
    taken = taken / lengths[:, None]
    taken[absent] = float("nan")
    return taken
