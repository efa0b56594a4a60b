"""A small factory of campaigns on disk whose tables are known by arithmetic."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import schemas

Row = dict[str, Any]
FLAGS = [f.name for f in schemas.RESULT if f.type == pa.bool_()]
DEFAULTS = {
    "weight": 1.0,
    "layer": "conv1",
    "bit": 30,
    "alarm_stage": "",
    "faulty_score": 0.2,
    "faulty_grad_max": 1.0,
    "range_excess_first": -0.1,
    "range_excess_second": -0.1,
}


def names_of(**changes: str) -> dict[str, str]:
    """The identity of a cell, with a slug made of it."""
    names = {
        "model": "digits_resnet",
        "dataset": "digits",
        "ood_dataset": "digits_unseen",
        "population": "id",
        "ood_method": "odin",
        "fault_model": "single_bit_flip",
        "fault_pass": "first_forward",
        "protection": "none",
        **changes,
    }
    return {"cell": "/".join(names.values()), **names}


def runs(
    classification: str = "",
    detection: str = "",
    harmless: str = "",
    wrong: str = "",
    **flags: bool,
) -> list[Row]:
    """Rows of one cell in order: one letter a run, `x` with an alarm and `.` without.

    classification and detection failures, harmless runs that were correct, runs that were not.
    flags: more columns, for the failures only.
    """
    rows: list[Row] = []
    for kind, letters in (
        ("classification_failure", classification),
        ("detection_failure", detection),
        ("harmless", harmless),
        ("wrong", wrong),
    ):
        for letter in letters:
            row: Row = {"run_id": len(rows), "alarm": letter == "x"}
            row["originally_correct"] = kind != "wrong"
            if kind.endswith("failure"):
                row |= {kind: True, **flags}
            rows.append(row)
    return rows


def table_of(rows: Iterable[Row], names: dict[str, str]) -> pa.Table:
    """Result rows with every column; flags default to False."""
    full = [
        {**DEFAULTS, "sample_index": row["run_id"], **dict.fromkeys(FLAGS, False), **names, **row}
        for row in rows
    ]
    return pa.Table.from_pylist(full, schema=schemas.RESULT)


#: write_cell(rows, shards=1, planned=None, manifest={}, folder=None, **identity) -> folder
Write = Callable[..., Path]


def writer_to(campaign: Path) -> Write:
    """What writes cells into a campaign's folder."""

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
