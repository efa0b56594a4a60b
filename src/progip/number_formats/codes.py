"""Which metadata register each value has."""

import numpy as np
import torch
from torch import Tensor

from progip.number_formats.base import NumberFormat


def registers(
    number_format: NumberFormat, rows: Tensor, row: np.ndarray, position: np.ndarray
) -> Tensor | None:
    """The register of each of some values of quantised rows, (values,) int32; None without any.

    Args:
        rows: (n, ...), those that the values lie in.
        row: (values,) of each value.
        position: (values,) flat index in its row, channels first.
    """
    metadata = number_format.metadata(rows)
    if metadata is None:
        return None
    size = max(rows[0].numel(), 1)
    block = position * metadata.shape[1] // size
    where = (torch.from_numpy(row).to(rows.device), torch.from_numpy(block).to(rows.device))
    found: Tensor = metadata[where]
    return found


def spread(metadata: Tensor | None, values: Tensor) -> Tensor | None:
    """Registers (n, blocks) in the shape that broadcasts to values (n, ...)."""
    if metadata is None:
        return None
    if metadata.shape[1] == 1:
        return metadata.reshape(-1, *[1] * (values.dim() - 1))
    return metadata.reshape(*metadata.shape, *[1] * (values.dim() - 2))
