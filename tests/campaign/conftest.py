"""Cells of the embedded demo, composed as run.py would."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from stored_rows import rows_of

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved

ROOT = Path(__file__).resolve().parents[2]
RunCell = Callable[..., pd.DataFrame]


@pytest.fixture
def run(tmp_path: Path) -> RunCell:
    """``run("runs=50", "pass=backward")`` runs a small cell below tmp_path and gives its rows."""

    def run_one(*overrides: str) -> pd.DataFrame:
        cfg = composed([f"outputs={tmp_path}", "batch_size=16", *overrides], ROOT / "conf")
        return rows_of(run_cell(cell_settings(cfg), resolved(cfg)))

    return run_one
