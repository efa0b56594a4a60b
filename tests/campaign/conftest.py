"""Cells of the embedded demo, composed as run.py would."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from progip import records
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved

ROOT = Path(__file__).resolve().parents[2]
RunCell = Callable[..., pd.DataFrame]


def rows_of(folder: Path) -> pd.DataFrame:
    """Every row of a cell, in order of runs."""
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    assert all(part.schema.names[: len(records.RESULT)] == records.RESULT.names for part in parts)
    return pa.concat_tables(parts).to_pandas()


@pytest.fixture
def run(tmp_path: Path) -> RunCell:
    """``run("runs=50", "pass=backward")`` runs a small cell below tmp_path and gives its rows."""

    def run_one(*overrides: str) -> pd.DataFrame:
        cfg = composed([f"outputs={tmp_path}", "batch_size=16", *overrides], ROOT / "conf")
        return rows_of(run_cell(cell_settings(cfg), resolved(cfg)))

    return run_one
