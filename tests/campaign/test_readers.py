"""Replay, report and status change nothing in a folder; a run refuses rows of another schema."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
from pandas.testing import assert_frame_equal

from progip.analysis.precision import current_precision
from progip.campaign import runner
from progip.campaign.replay import replay
from progip.campaign.settings import CellSettings
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.report.status import load_status
from progip.report.writing import write_report
from progip.storage import store

ROOT = Path(__file__).resolve().parents[2]
RunCell = Callable[..., pd.DataFrame]
Change = Callable[[pa.Table], pa.Table]


def without_alarm(table: pa.Table) -> pa.Table:
    return table.drop_columns(["alarm" if "alarm" in table.column_names else "label"])


def with_more(table: pa.Table) -> pa.Table:
    return table.append_column("temperature", table["golden_score"])


@pytest.fixture
def cell(run: RunCell, tmp_path: Path) -> Path:
    """A finished cell of two shards; its folder."""
    run("runs=20", "shard_size=10")
    (found,) = (tmp_path / "campaign").glob("*/*/*/progip")
    return found


@pytest.fixture
def settings(tmp_path: Path) -> CellSettings:
    return cell_settings(composed([f"outputs={tmp_path}", "batch_size=16"], ROOT / "conf"))


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but what a run may leave there of itself."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def change_shards(folder: Path, change: Change) -> None:
    for path in folder.glob("part-*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)


def change_version(cell: Path) -> None:
    for folder in (cell, cell.parent / store.EXECUTION):
        manifest = json.loads((folder / store.MANIFEST).read_text())
        store.write_json(folder / store.MANIFEST, {**manifest, "schema_version": 2})


def read_by_all(campaign: Path, settings: CellSettings) -> list[str]:
    """What replay, the precision of a cell, report and status say of a campaign."""
    before = files(campaign)
    said = [load_status(campaign).text()]
    for reader in (
        lambda: replay(settings, 17),
        lambda: current_precision(settings.folder),
        lambda: write_report(campaign, campaign.parent / "report"),
    ):
        try:
            said.append(str(reader()))
        except ProgipError as refusal:
            said.append(str(refusal))
    assert files(campaign) == before
    return said


def assert_a_run_refuses(run: RunCell, campaign: Path, named: str) -> None:
    before = files(campaign)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Execution, "run", lambda *_: pytest.fail("executed again"))
        for runs in (20, 40):
            with pytest.raises(store.OtherConfiguration, match=named):
                run(f"runs={runs}", "shard_size=10")
    assert files(campaign) == before


def test_rows_of_other_columns(
    run: RunCell, cell: Path, settings: CellSettings, tmp_path: Path
) -> None:
    campaign = tmp_path / "campaign"
    change_shards(cell, without_alarm)
    status, replayed, precise, report = read_by_all(campaign, settings)
    assert "part-0000000010-0000000020.parquet lacks alarm" in replayed
    assert "part-0000000000-0000000010.parquet lacks alarm" in precise
    assert "Use the progip that wrote it (progip " in replayed
    for text in (status, report):
        assert "it lacks the columns alarm. Report with the version of progip that wrote" in text
    assert_a_run_refuses(run, campaign, r"progip holds rows with other columns.*lacks alarm")


@pytest.mark.parametrize("change", [without_alarm, with_more])
def test_executed_runs_of_other_columns(
    run: RunCell, cell: Path, tmp_path: Path, change: Change
) -> None:
    change_shards(cell.parent / store.EXECUTION, change)
    shutil.rmtree(cell)  # what would be judged anew, from the executed runs
    assert_a_run_refuses(
        run, tmp_path / "campaign", "_execution holds rows with.*(lacks label|temperature besides)"
    )


def test_more_columns_are_read_by_name_and_not_added_to(
    run: RunCell, cell: Path, settings: CellSettings, tmp_path: Path
) -> None:
    change_shards(cell, with_more)
    result = replay(settings, 17)
    assert result.differences == []
    assert result.stored.column_names == schemas.RESULT.names
    status, *_, report = read_by_all(tmp_path / "campaign", settings)
    assert "20 of 20 planned runs; 1 done" in status
    assert "1 of 1 cells finished" in report
    assert "Warning" not in status + report
    assert_a_run_refuses(run, tmp_path / "campaign", "has temperature besides")


def test_another_schema_version(
    run: RunCell, cell: Path, settings: CellSettings, tmp_path: Path
) -> None:
    change_version(cell)
    said = read_by_all(tmp_path / "campaign", settings)
    assert all("progip" in text and "schema version 2" in text for text in said)
    assert str(cell) in said[1]
    assert "reads and writes version 1" in said[1]
    assert_a_run_refuses(run, tmp_path / "campaign", r"progip holds results of schema version 2")


def test_a_damaged_shard_is_named_by_readers_and_redone_by_the_writer(
    run: RunCell, cell: Path, settings: CellSettings, tmp_path: Path
) -> None:
    whole = run("runs=20", "shard_size=10")
    shard = store.shard_path(cell, 10, 20)
    shard.write_bytes(shard.read_bytes()[:-50])
    status, replayed, precise, _ = read_by_all(tmp_path / "campaign", settings)
    assert shard.name in status
    assert f"{shard}: damaged" in replayed
    assert f"{shard} cannot be read" in precise
    assert_frame_equal(run("runs=20", "shard_size=10"), whole)
    assert (cell / f"_aside-{shard.name}").exists()


def test_a_shard_elsewhere_does_not_keep_a_row_from_being_replayed(
    cell: Path, settings: CellSettings
) -> None:
    store.shard_path(cell, 0, 10).write_bytes(b"PAR1 torn")
    assert replay(settings, 17).differences == []
