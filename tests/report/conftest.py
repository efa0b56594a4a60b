"""Fixtures that write campaigns with the factory beside this file."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from campaign_factory import Row, Write, names_of, table_of


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """The folder of a campaign that a test fills."""
    return tmp_path / "campaign"


@pytest.fixture
def write_cell(campaign: Path) -> Write:
    """Write a cell: write_cell(rows, shards=1, planned=None, manifest={}, **identity) -> folder."""

    def write(
        rows: list[Row],
        *,
        shards: int = 1,
        planned: int | None = None,
        manifest: dict[str, Any] | None = None,
        folder: str | None = None,
        **identity: str,
    ) -> Path:
        names = names_of(**identity)
        target = campaign / (folder or names["cell"])
        target.mkdir(parents=True)
        size = -(-len(rows) // shards) if rows else 1
        for start in range(0, len(rows), size):
            part = table_of(rows[start : start + size], names)
            name = f"part-{start:010d}-{start + len(part):010d}.parquet"
            pq.write_table(part, target / name)
        content = {
            "kind": "cell",
            "schema_version": 1,
            "cell": names,
            "runs": len(rows) if planned is None else planned,
            "seed": 0,
            "thresholds": {"ood": 0.126},
            "clean": {"images": 200, "alarms": 0 if names["protection"] == "none" else 3},
            "base_metrics": {
                "id_accuracy": {"correct": 199, "images": 200},
                "auroc": 0.99,
                "fpr95": 0.05,
                "id_images": 200,
                "ood_images": 100,
                "ood_false_positives": 6,
                "id_true_positives": 191,
            },
            "weights_sha256": "ab" * 32,
            "data": {"id_evaluation": "cd"},
            "identity": {"model": {"name": names["model"]}},
            "commit": "0" * 40,
            **(manifest or {}),
        }
        (target / "manifest.json").write_text(json.dumps(content))
        return target

    return write
