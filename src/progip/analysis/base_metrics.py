"""How well each detector of a campaign tells ID from OOD without faults, from its manifests."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from progip.analysis.manifests import CellFolder, correction_of, part

_SEPARATION = (
    "auroc",
    "fpr95",
    "id_images",
    "ood_images",
    "id_true_positives",
    "ood_false_positives",
)


def base_metrics(
    cells: Sequence[CellFolder], detector: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Base metrics, one row per detector, from the first manifest that has them.

    Args:
        cells: of a campaign.
        detector: the parts of a cell's identity that they depend on.

    Returns:
        the table of `Campaign.base`, and a sentence for each manifest that says something else.
    """
    rows: dict[tuple[str, ...], tuple[CellFolder, dict[str, Any]]] = {}
    unperturbed: dict[tuple[str, ...], dict[str, Any]] = {}
    odd = []
    for cell in cells:
        if correction_of(cell) and len({correction_of(c) for c in cells}) > 1:
            continue  # another network; the cells that only watch describe the one without
        metrics = part(cell.manifest, "base_metrics")
        key = cell.key(*detector)
        first, known = rows.get(key, (cell, {}))
        if metrics and known and metrics != known:
            odd.append(
                f"base metrics of {cell.name} differ from those of {first.name}, which are shown"
            )
        rows[key] = (first, known) if known else (cell, metrics)
        # manifests of an earlier version have none
        unperturbed[key] = unperturbed.get(key) or part(cell.manifest, "base_metrics_unperturbed")
    frame = []
    for key, (_, metrics) in rows.items():
        accuracy, plain = part(metrics, "id_accuracy"), unperturbed[key]
        row: dict[str, object] = dict(zip(detector, key, strict=True))
        row["id_correct"] = as_number(accuracy.get("correct"))
        row["accuracy_images"] = as_number(accuracy.get("images"))
        for name in _SEPARATION:
            row[name] = as_number(metrics.get(name))
            row[f"unperturbed_{name}"] = as_number(plain.get(name))
        frame.append(row)
    return pd.DataFrame(frame), odd


def as_number(value: float | None) -> float:
    """A number of a manifest; NaN where it has none."""
    return math.nan if value is None else float(value)
