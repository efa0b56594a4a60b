import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from campaign_factory import Write, runs

from progip.errors import ProgipError
from progip.report import Campaign


def test_counts_by_hand(campaign: Path, write_cell: Write) -> None:
    rows = runs(classification="x..", detection="xx.", harmless="x....", wrong="x.")
    write_cell(rows, shards=3, protection="progip")
    cell = Campaign.load(campaign).cells.iloc[0]
    expected = {
        "planned": 13,
        "done": 13,
        "originally_correct": 11,
        "classification_failures": 3,
        "detection_failures": 3,
        "classification_left": 2,
        "detection_left": 1,
        "alarms": 5,
        "harmless": 7,
        "harmless_alarms": 2,
        "harmless_correct": 5,
        "harmless_correct_alarms": 1,
        "clean_images": 200,
        "clean_alarms": 3,
    }
    assert {name: cell[name] for name in expected} == expected
    assert cell["done_w"] == cell["done_w2"] == 13


def test_weights_are_summed_beside_the_counts(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection="x.", harmless="..")
    for row, weight in zip(rows, (0.5, 2.0, 1.0, 0.25), strict=True):
        row["weight"] = weight
    write_cell(rows, protection="progip")
    cell = Campaign.load(campaign).cells.iloc[0]
    assert (cell["done"], cell["done_w"], cell["done_w2"]) == (4, 3.75, 5.3125)
    assert (cell["detection_left"], cell["detection_left_w"]) == (1, 2.0)
    assert (cell["detection_failures_w"], cell["detection_failures_w2"]) == (2.5, 4.25)


@pytest.mark.parametrize(
    ("fault_pass", "flag", "kind", "counted"),
    [
        ("first_forward", "nonfinite_logits", "classification", True),
        ("first_forward", "nonfinite_score", "classification", False),
        ("first_forward", "nonfinite_score", "detection", True),
        ("first_forward", "nonfinite_logits", "detection", False),
        ("second_forward", "nonfinite_score", "detection", True),
        ("second_forward", "nonfinite_gradient", "detection", False),
        ("backward", "nonfinite_gradient", "detection", True),
        ("backward", "nonfinite_score", "detection", False),
    ],
)
def test_what_makes_a_failure_nonfinite(
    campaign: Path, write_cell: Write, fault_pass: str, flag: str, kind: str, counted: bool
) -> None:
    write_cell(runs(**{kind: "...", flag: True}, harmless=".."), fault_pass=fault_pass)
    assert Campaign.load(campaign).cells.iloc[0]["nonfinite_failures"] == (3 if counted else 0)


def test_other_files_are_passed_by(campaign: Path, write_cell: Write) -> None:
    cell = write_cell(runs(harmless="...."))
    shard = next(cell.glob("part-*.parquet"))
    shutil.copy(shard, cell / "_aside-part-0.parquet")
    shutil.copy(shard, cell / ".part-0.parquet.tmp")
    execution = cell.parent / "execution"
    execution.mkdir()
    (execution / "manifest.json").write_text('{"kind": "execution"}')
    shutil.copytree(cell, cell.parent / "_old")
    shutil.copytree(cell, cell.parent / ".hidden")
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [4]
    assert loaded.warnings == ()


def test_truncated_shard_is_named_and_left_out(campaign: Path, write_cell: Write) -> None:
    cell = write_cell(runs(detection=".", harmless="." * 9), shards=2, protection="progip")
    broken = sorted(cell.glob("part-*.parquet"))[0]
    broken.write_bytes(broken.read_bytes()[:-100])
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [5]
    assert list(loaded.cells["detection_failures"]) == [0]
    (warning,) = loaded.warnings
    assert f"{cell.relative_to(campaign).as_posix()}/{broken.name}" in warning
    assert str(campaign) not in warning


def test_rows_that_make_no_sense_are_left_out(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection=".", harmless="...")
    write_cell([{**row, "weight": -1.0} for row in rows], fault_pass="backward")
    write_cell([{**row, "classification_failure": True} for row in rows])
    write_cell([{**row, "alarm": None} for row in rows], fault_pass="second_forward")
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [0, 0, 0]
    for word in ("weight", "at once", "alarm has empty values"):
        assert any(word in warning for warning in loaded.warnings)


def test_shard_without_a_column(campaign: Path, write_cell: Write) -> None:
    cell = write_cell(runs(harmless="..."))
    shard = next(cell.glob("part-*.parquet"))
    pq.write_table(pq.read_table(shard).drop_columns(["alarm"]), shard)
    assert "lacks the columns alarm" in Campaign.load(campaign).warnings[0]


def test_runs_count_once_and_only_if_planned(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection="...", harmless="." * 7)
    cell = write_cell(rows, planned=8)
    shard = next(cell.glob("part-*.parquet"))
    pq.write_table(pq.read_table(shard).slice(0, 2), cell / "part-again.parquet")
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [8]
    assert list(loaded.cells["detection_failures"]) == [3]
    assert len(loaded.failures) == 3
    assert any("2 rows left out" in w and "planned" in w for w in loaded.warnings)
    assert any("2 rows left out" in w and "counted already" in w for w in loaded.warnings)


def test_rows_in_any_order_with_one_twice(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection="..", harmless="...")
    write_cell([rows[i] for i in (3, 0, 4, 0, 1)], planned=5)
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [4]
    assert sorted(loaded.failures["run_id"]) == [0, 1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"weights_sha256": "cd" * 32}, "weights_sha256"),
        ({"data": {"id_evaluation": "ef"}}, "data.id_evaluation"),
        ({"thresholds": {"ood": 0.2}}, "thresholds.ood"),
        ({"identity": {"model": {"name": "digits_resnet", "width": 2}}}, "model.width"),
        ({"identity": {}, "config": {"ood_method": {"epsilon": 0.1}}}, "ood_method|model"),
    ],
)
def test_of_mixed_cells_those_that_agree_are_reported(
    campaign: Path, write_cell: Write, change: dict, named: str
) -> None:
    one = write_cell(runs(harmless="..."), population="ood")
    write_cell(runs(harmless="..."))
    odd = write_cell(runs(harmless="...."), fault_pass="backward", manifest=change)
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["fault_pass"]) == ["first_forward"] * 2
    assert list(loaded.cells["done"]) == [3, 3]
    (warning,) = loaded.warnings
    names = [cell.relative_to(campaign).as_posix() for cell in (odd, one)]
    assert re.match(rf"left out: {names[0]}: it differs from \S+ in ({named}) \(", warning)
    assert "--allow-mixed" in warning
    whole = Campaign.load(campaign, allow_mixed=True)
    assert (len(whole.cells), whole.warnings) == (3, ())


def test_of_two_halves_the_one_with_more_rows_is_reported(
    campaign: Path, write_cell: Write
) -> None:
    """A component that another took the place of is named alone, and each reason told once."""
    uniform = {"identity": {"sampling": {"name": "uniform", "layers": 1}}}
    stratified = {"identity": {"sampling": {"name": "stratified", "bits": 8, "layers": 2}}}
    for population in ("id", "ood"):
        write_cell(runs(harmless="..."), population=population, manifest=uniform)
        changed = {"fault_pass": "backward", "population": population, "manifest": stratified}
        write_cell(runs(harmless="." * 9), **changed)
    loaded = Campaign.load(campaign)
    assert list(loaded.cells["done"]) == [9, 9]
    (warning,) = loaded.warnings
    assert "they differ from" in warning
    assert "in sampling (stratified and uniform), so" in warning


def test_what_may_differ(campaign: Path, write_cell: Write) -> None:
    """Other models, methods and OOD sets stand apart; so do machine settings of one."""
    for number, name in enumerate(("model", "ood_method", "dataset")):
        write_cell(runs(harmless="."), manifest={"seed": number}, **{name: f"other_{name}"})
    write_cell(runs(harmless="."), ood_dataset="other", manifest={"data": {"ood": "1"}})
    for number, protection in enumerate(("progip", "ranger")):
        model = {"name": "digits_resnet", "weights": str(number)}
        identity = {"model": model, "protection": {"margin": number}}
        write_cell(runs(harmless="."), protection=protection, manifest={"identity": identity})
    assert len(Campaign.load(campaign).cells) == 6


def test_one_cell_twice_is_always_refused(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(harmless="..."), folder="a")
    write_cell(runs(harmless="..."), folder="b")
    with pytest.raises(ProgipError, match="a and b hold the same cell"):
        Campaign.load(campaign, allow_mixed=True)


def test_cells_of_two_commits_are_noted(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(harmless="..."))
    write_cell(runs(harmless="..."), fault_pass="backward", manifest={"commit": "1" * 40})
    assert "2 commits" in Campaign.load(campaign).warnings[0]


def test_folders_without_a_campaign(tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match="holds no cell"):
        Campaign.load(tmp_path)
    with pytest.raises(ProgipError, match="no folder"):
        Campaign.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "cannot be read"),
        (json.dumps({"kind": "cell", "schema_version": 2}), "schema version 2"),
        (json.dumps({"kind": "cell", "schema_version": 1}), "lacks runs, seed, cell.model"),
    ],
)
def test_broken_manifest_is_named(campaign: Path, write_cell: Write, text: str, named: str) -> None:
    cell = write_cell(runs(harmless="."), folder="the_cell")
    (cell / "manifest.json").write_text(text)
    with pytest.raises(ProgipError, match=f"the_cell/manifest.json.*{named}"):
        Campaign.load(campaign)
