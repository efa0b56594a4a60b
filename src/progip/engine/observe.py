"""From tensors to table columns, the same for golden and faulty rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip import records
from progip.engine.pipeline import Pipeline
from progip.probes import Observation


def observed_columns(
    pipeline: Pipeline, observation: Observation, count: int, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The first ``count`` rows of an observation: the columns of every probe of the pipeline.

    Args:
        labels: (count,) of these rows, where they are known.
    """
    if labels is not None:
        known = torch.from_numpy(labels.astype(np.int64)).to(observation.logits.device)
        observation = replace(observation, labels=known)
    columns: dict[str, np.ndarray] = {}
    for probe in pipeline.probes:
        columns |= probe.columns(observation, count)
    return columns


def batches_of(images: Tensor, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """The images in order as indices (batch_size,) on their device, and how many are not padding.

    Every batch has one shape, two rows at least.
    """
    batch_size = max(batch_size, 2)
    for start in range(0, len(images), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(images)))
        yield torch.from_numpy(np.resize(chosen, batch_size)).to(images.device), len(chosen)


def golden_table(
    pipeline: Pipeline,
    images: Tensor,
    labels: np.ndarray,
    batch_size: int,
    count_images: Callable[[int], object] = lambda _: None,
) -> pa.Table:
    """Observe every image fault-free: one row of ``records.golden_schema`` each.

    Batches have the fixed shape of faulty ones; the last is padded. Each calls ``count_images``
    with its number of images.
    """
    parts, start = [], 0
    for padded, count in batches_of(images, batch_size):
        seen = pipeline(images[padded])
        parts.append(observed_columns(pipeline, seen, count, labels[start : start + count]))
        start += count
        count_images(count)
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    columns["sample_index"] = np.arange(len(images), dtype=np.int32)
    columns["label"] = labels.astype(np.int32)
    schema = records.golden_schema(c for probe in pipeline.probes for c in probe.produces)
    return records.table(columns, schema)
