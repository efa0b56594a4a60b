"""The table of students under faults says what the rows of the campaign say."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_students_command import call

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parents[2]
COMMON = [
    "ood_method=none", "ood_dataset=none", "outcome=sdc", "fault_model=one_bit",
    "fault_model.rate=1e-3", "dataset.limit=30", "dataset.calibration=5", "runs=50",
    "protection.images=40", "name=robust_students",
]  # fmt: skip


def cell(outputs: Path, dataset: str, protection: str) -> pd.DataFrame:
    words = [
        f"dataset.name={dataset}", f"protection={protection}", "model.name=teacher",
        f"outputs={outputs}",
    ]  # fmt: skip
    given = [w for w in COMMON if protection != "none" or not w.startswith("protection.")]
    cfg = composed([*given, *words], ROOT / "conf")
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    return pq.read_table(next(folder.glob("part-*"))).to_pandas()


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = cell(tmp_path, "clean", "none")
    folder = tmp_path / "robust_students"
    with pytest.raises(ProgipError, match="two datasets named clean and attacked"):
        call("table", str(folder))
    bounded = cell(tmp_path, "clean", "ranger_bound")
    cell(tmp_path, "attacked", "none")
    cell(tmp_path, "attacked", "ranger_bound")
    capsys.readouterr()
    call("table", str(folder))
    shown = capsys.readouterr().out
    free, faulty = (
        next(line for line in shown.splitlines() if words in line)
        for words in ("without faults", "layer outputs, 0.001")
    )
    golden = clean.drop_duplicates("sample_index")
    assert f"{100 * (golden['golden_class'] == golden['label']).mean():.1f} (" in free
    for rows in (clean, bounded):
        assert f"{100 * (rows['faulty_class'] == rows['label']).mean():.1f} (" in faulty
        assert f"{100 * (rows['faulty_class'] != rows['golden_class']).mean():.2f} (" in faulty
    assert (clean["faulty_class"] != clean["golden_class"]).any()
    written = pd.read_csv(folder / "report/robust_students.csv")
    assert len(written) == 4
    assert (folder / "report/robust_students.svg").exists()
