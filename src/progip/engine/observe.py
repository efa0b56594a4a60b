"""From tensors to table columns, the same for golden and faulty rows."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip import records
from progip.engine.pipeline import Observation, Pipeline
from progip.models.calls import Call


def observed_columns(
    observation: Observation, range_sites: list[Call], count: int
) -> dict[str, np.ndarray]:
    """The first ``count`` rows as columns named as in ``records.GOLDEN``, and
    ``records.GOLDEN_CORRECTION`` for a network with a correcting protection.

    A row whose logits hold a NaN has no class (``records.NO_CLASS``): NaN never compares as fine.
    """
    logits = observation.logits[:count]
    finite = torch.isfinite(logits).all(1)
    klass = logits.argmax(1).masked_fill(torch.isnan(logits).any(1), records.NO_CLASS)
    grad_max, score = observation.grad_max[:count], observation.score[:count]
    columns = {
        "class": klass.int().cpu().numpy(),
        "score": score.cpu().numpy(),
        "grad_max": grad_max.cpu().numpy(),
        "nonfinite_logits": ~finite.cpu().numpy(),
    }
    columns["nonfinite_gradient"] = ~np.isfinite(columns["grad_max"])
    columns["nonfinite_score"] = ~np.isfinite(columns["score"])
    if observation.flagged is not None and observation.corrected is not None:
        columns["flagged"] = observation.flagged[:count].cpu().numpy()
        columns["corrected"] = observation.corrected[:count].cpu().numpy()
    names = np.array([layer for layer, _ in range_sites] or [""], dtype=object)
    for suffix, excess in (
        ("first", observation.excess_first),
        ("second", observation.excess_second),
    ):
        worst, layer = _worst(excess[:count])
        columns[f"range_excess_{suffix}"] = worst
        columns[f"range_layer_{suffix}"] = np.where(worst <= 0, "", names[layer])
    return columns


def _worst(excess: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if excess.shape[1] == 0:
        return np.full(len(excess), -1, np.float32), np.zeros(len(excess), np.int64)
    value, position = excess.max(1)  # NaN counts as the largest
    return value.cpu().numpy(), position.cpu().numpy()


def golden_table(
    pipeline: Pipeline, images: Tensor, labels: np.ndarray, batch_size: int
) -> pa.Table:
    """Observe every image fault-free: one row of ``records.GOLDEN`` each, with the columns of
    ``records.GOLDEN_CORRECTION`` for a network with a correcting protection.

    Batches have the fixed shape of faulty ones; the last is padded.
    """
    batch_size = max(batch_size, 2)
    parts = []
    for start in range(0, len(images), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(images)))
        padded = torch.from_numpy(np.resize(chosen, batch_size)).to(images.device)
        parts.append(observed_columns(pipeline(images[padded]), pipeline.ranges.sites, len(chosen)))
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    columns["sample_index"] = np.arange(len(images), dtype=np.int32)
    columns["label"] = labels.astype(np.int32)
    more = records.GOLDEN_CORRECTION if "flagged" in columns else []
    schema = pa.schema([*records.GOLDEN, *more])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
