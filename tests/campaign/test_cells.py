"""The invariants of a campaign, on whole cells of the embedded demo."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
from pandas.testing import assert_frame_equal

from progip import records
from progip.campaign import golden, runner, subject
from progip.campaign.replay import replay
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.storage import store

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("runs=60",)


def folder_of(tmp_path: Path, protection: str = "progip", name: str = "campaign") -> Path:
    (found,) = (tmp_path / name).glob(f"*/*/*/{protection}")
    return found


@pytest.mark.parametrize("method", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_null_campaign_changes_nothing(run, method: str, fault_pass: str) -> None:
    rows = run("fault_model=none", f"pass={fault_pass}", f"ood_method={method}", *SMALL)
    for name in ("class", "score", "grad_max"):
        assert rows[f"faulty_{name}"].equals(rows[f"golden_{name}"]), name
    assert rows["value_before"].equals(rows["value_after"])
    for name in ("class_changed", "verdict_changed", "classification_failure", "detection_failure"):
        assert not rows[name].any(), name


def test_rows_follow_the_contract(run, tmp_path: Path) -> None:
    rows = run("population=ood", *SMALL)
    assert list(rows) == schemas.RESULT.names
    assert rows["run_id"].tolist() == list(range(60))
    assert set(rows["label"].tolist()) == {-1}
    assert set(rows["population"].tolist()) == {"ood"}
    before, after = (rows[f"value_{w}"].to_numpy().view(np.uint32) for w in ("before", "after"))
    np.testing.assert_array_equal(before ^ after, 1 << rows["bit"].to_numpy().astype(np.uint32))
    manifest = json.loads((folder_of(tmp_path) / store.MANIFEST).read_text())
    assert manifest["runs"] == 60
    assert len(manifest["weights_sha256"]) == 64
    assert set(manifest["data"]) == {
        "train", "id_calibration", "id_evaluation", "ood_calibration", "ood_evaluation",
    }  # fmt: skip
    assert manifest["clean"]["images"] == 254
    assert manifest["config"]["ood_method"]["temperature"] == 1000.0
    assert {"torch", "python"} <= set(manifest["versions"])


def test_rows_depend_on_nothing_but_seed_cell_and_run(run, tmp_path: Path) -> None:
    once = run("runs=150", "shard_size=1000", "name=once")
    run("runs=40", "shard_size=25", "name=parts")
    continued = run("runs=150", "shard_size=25", "name=parts")
    assert_frame_equal(continued, once)
    names = [p.name for p in sorted(folder_of(tmp_path, name="parts").glob("part-*"))]
    assert "part-0000000025-0000000040.parquet" in names  # what was there is not done again
    assert "part-0000000040-0000000050.parquet" in names
    other = run("runs=150", "seed=1", "name=seed")
    assert not other["neuron"].equals(once["neuron"])
    plan = records.PLAN.names
    assert_frame_equal(run("runs=150", "name=size", "batch_size=7")[plan], once[plan])


@pytest.mark.parametrize("executor", ["incremental", "reference"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_outcomes_do_not_depend_on_the_batch_size(run, batch_size: int, executor: str) -> None:
    once = run("runs=100", "name=once", f"executor={executor}")
    again = run("runs=100", "name=again", f"executor={executor}", f"batch_size={batch_size}")
    for name in (*schemas.OUTCOME.names, *schemas.ALARM.names, "faulty_class"):
        assert again[name].equals(once[name]), name


@pytest.mark.parametrize("executor", ["incremental", "reference"])
def test_rows_do_not_depend_on_the_shard_size(run, tmp_path: Path, executor: str) -> None:
    cell = ("runs=1100", "pass=second_forward", f"executor={executor}")
    small, large = (run(*cell, f"shard_size={s}", f"name={s}") for s in (100, 1000))
    assert_frame_equal(small, large)
    assert small["detection_failure"].any()
    assert [len(list(folder_of(tmp_path, name=n).glob("part-*"))) for n in ("100", "1000")] == [
        11, 2,
    ]  # fmt: skip


def test_protections_share_executed_runs(run, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = ("pass=backward", "fault_model.bits=[30]", *SMALL)  # where only ProGIP looks
    first = run("protection=progip", *cell)
    monkeypatch.setattr(
        runner.Execution, "run", lambda *_: pytest.fail("the faults were injected again")
    )
    second = run("protection=ranger", *cell)
    third = run("protection=none", *cell)
    executed = schemas.EXECUTION.names
    assert_frame_equal(first[executed], second[executed])
    assert not first["alarm"].equals(second["alarm"])
    assert not third["alarm"].any()


def test_a_finished_cell_returns_at_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(*SMALL)
    monkeypatch.setattr(runner.Execution, "run", lambda *_: pytest.fail("executed again"))
    monkeypatch.setattr(golden, "golden_table", lambda *_: pytest.fail("golden work done again"))
    assert_frame_equal(run(*SMALL), first)
    assert_frame_equal(run("runs=30"), first)  # fewer runs than there are: nothing is thrown away


def test_a_lost_shard_is_executed_again(run, tmp_path: Path) -> None:
    first = run("shard_size=20", *SMALL)
    folder = folder_of(tmp_path)
    (folder.parent / store.EXECUTION / "part-0000000020-0000000040.parquet").unlink()
    (folder / "part-0000000020-0000000040.parquet").write_bytes(b"PAR1 torn")
    assert_frame_equal(run("shard_size=20", *SMALL), first)


@pytest.mark.parametrize("method", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_any_row_replays_from_its_own_columns(
    run, tmp_path: Path, method: str, fault_pass: str
) -> None:
    overrides = [
        f"outputs={tmp_path}", "batch_size=16", f"ood_method={method}", f"pass={fault_pass}",
        "fault_model.bits=[23,27,30,31]", *SMALL,
    ]  # fmt: skip
    run(*overrides[2:])
    settings = cell_settings(composed(overrides, ROOT / "conf"))
    for run_id in (0, 7, 31, 59):
        assert replay(settings, run_id).differences == []
    with pytest.raises(ProgipError, match=r"no run 60; runs here: 0\.\.59"):
        replay(settings, 60)


def test_replay_notices_a_changed_row(run, tmp_path: Path) -> None:
    run("runs=20")
    folder = folder_of(tmp_path)
    path = folder / "part-0000000000-0000000020.parquet"
    table = pq.read_table(path)
    position = table.schema.get_field_index("faulty_score")
    changed = pa.array([0.5] * 20, pa.float64())
    pq.write_table(table.set_column(position, "faulty_score", changed), path)
    settings = cell_settings(composed([f"outputs={tmp_path}", "batch_size=16"], ROOT / "conf"))
    assert "faulty_score" in replay(settings, 3).differences


def test_thresholds_never_see_evaluation_images(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other evaluation images, same thresholds and ranges."""
    run("runs=5", "name=all")
    run("runs=5", "name=fewer", "dataset.limit=300", "ood_dataset.limit=150")
    manifests = [
        json.loads((folder_of(tmp_path, name=n) / store.MANIFEST).read_text())
        for n in ("all", "fewer")
    ]
    assert manifests[0]["data"]["id_evaluation"] != manifests[1]["data"]["id_evaluation"]
    assert manifests[0]["thresholds"] == manifests[1]["thresholds"]
    assert manifests[0]["data"]["id_calibration"] == manifests[1]["data"]["id_calibration"]


def test_another_configuration_under_the_folder_is_refused(run, tmp_path: Path) -> None:
    run(*SMALL)
    before = {p: p.read_bytes() for p in tmp_path.rglob("part-*")}
    with pytest.raises(ProgipError, match=r"ood_method\.temperature was 1000\.0, is now 10\.0"):
        run("ood_method.temperature=10", *SMALL)
    with pytest.raises(ProgipError, match=r"protection\.score_margin was 0\.1, is now 0\.5"):
        run("protection.score_margin=0.5", *SMALL)
    assert {p: p.read_bytes() for p in tmp_path.rglob("part-*")} == before


def test_golden_results_that_do_not_recur_are_computed_again(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "cache"))
    subject._ready.clear()
    first = run("name=first", *SMALL)
    (table,) = (tmp_path / "cache" / "golden").glob("*/id-evaluation.parquet")
    content = pq.read_table(table)
    position = content.schema.get_field_index("score")
    pq.write_table(
        content.set_column(position, "score", pa.array([0.5] * len(content), pa.float64())), table
    )
    subject._ready.clear()
    assert_frame_equal(run("name=second", *SMALL), first)
    assert "do not recur" in caplog.text
