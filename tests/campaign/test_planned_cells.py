"""Sampling plans, sizes and stopping rules on whole cells of the embedded demo."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from progip.analysis.precision import current_precision
from progip.campaign.sizing import Sizing, Speed
from progip.errors import ProgipError
from progip.report import Campaign, write_report
from progip.storage import store

NEYMAN = ("sampling=stratified", "sampling.pilot=100", "fault_model.bits=[3,22,29,30]")


def folder_of(tmp_path: Path, name: str = "campaign") -> Path:
    (found,) = (tmp_path / name).glob("*/*/*/progip")
    return found


def manifest_of(tmp_path: Path, name: str = "campaign") -> dict:
    return json.loads((folder_of(tmp_path, name) / store.MANIFEST).read_text())


def test_a_planned_cell_is_the_same_however_it_is_run(run, tmp_path: Path) -> None:
    once = run("runs=220", *NEYMAN, "name=once")
    run("runs=70", "shard_size=40", *NEYMAN, "name=parts")  # ends within the pilot
    run("runs=130", "shard_size=40", *NEYMAN, "name=parts")
    assert_frame_equal(run("runs=220", "shard_size=40", *NEYMAN, "name=parts"), once)
    assert once["weight"][:100].max() <= 2 + 1e-6
    assert once["weight"][100:].nunique() > 3
    sampling = manifest_of(tmp_path, "once")["sampling"]
    strata = sampling["strata"]
    assert sum(s["share"] for s in strata) == pytest.approx(1)
    for part, rows in (("pilot", once[:100]), ("allocation", once[100:])):
        expected = [strata[h]["share"] / strata[h][part] for h in rows["stratum"]]
        assert rows["weight"].to_numpy() == pytest.approx(expected)
    names = np.array([s["name"] for s in strata])[once["stratum"]]
    named = zip(names, once["layer"], strict=True)
    assert all(name.endswith(f" layer={layer}#0") for name, layer in named)
    finite = np.isfinite(once["value_after"])
    assert np.array_equal(finite, ["not finite" not in name for name in names])
    wrong = [" wrong " in name for name in names]
    assert np.array_equal(~once["originally_correct"], wrong)
    text = write_report(tmp_path / "once")
    assert "effective n" in text
    assert "every layer equally likely" in text
    weighted = Campaign.load(tmp_path / "once", estimand="mac_weighted")
    assert "as they have multiply-accumulates" in write_report(
        tmp_path / "once", estimand="mac_weighted"
    )
    assert weighted.cells["done_w"].iloc[0] > 0


def test_protections_share_a_planned_execution(run) -> None:
    first = run("runs=150", *NEYMAN)
    second = run("runs=150", *NEYMAN, "protection=ranger")
    columns = ["run_id", "layer", "bit", "weight", "stratum", "faulty_score"]
    assert_frame_equal(first[columns], second[columns])


def test_importance_rows(run, tmp_path: Path) -> None:
    rows = run("runs=200", "sampling=importance")
    assert rows["weight"].max() <= 5 + 1e-9
    assert (rows["bit"] == 30).mean() > 0.2
    assert Campaign.load(tmp_path / "campaign").cells["done_w2"].iloc[0] > 200


def test_stopping_is_decided_by_rows_alone(run, tmp_path: Path, caplog) -> None:
    rule = (
        "stopping=alpha_spending", "stopping.first=100", "stopping.growth=1.5",
        "stopping.of=failure_rate_before", "stopping.margin=0.08", "stopping.events=5",
        "fault_model.bits=[30]", "runs=2000",
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "progip"):
        once = run(*rule, "name=once")
    assert "narrow enough" in caplog.text
    assert 100 <= len(once) < 2000
    record = manifest_of(tmp_path, "once")["stopping"]
    assert record["enough"]
    assert record["runs"] == len(once) == manifest_of(tmp_path, "once")["runs"]
    assert record["half_width"] <= 0.08
    run("fault_model.bits=[30]", "runs=130", "name=again")  # as if killed before its end
    assert_frame_equal(run(*rule, "name=again", "shard_size=64"), once)
    other = run(*rule, "name=once", "protection=ranger", "stopping.margin=0.2")
    assert len(other) < len(once)  # stops for itself although more is executed
    precision = current_precision(folder_of(tmp_path, "once"), "failure_rate_before")
    assert precision.target == 0.08
    assert precision.runs_needed == 0
    assert precision.runs == len(once)
    narrower = current_precision(
        folder_of(tmp_path, "once"), "failure_rate_before", margin=precision.half_width / 2
    )
    assert narrower.runs_needed == pytest.approx(3 * len(once), abs=1)


def test_a_cap_that_is_too_low_is_said(run, tmp_path: Path, caplog) -> None:
    run("runs=60", "stopping=confidence_sequence", "stopping.first=30", "stopping.margin=0.0001")
    assert "margin asked for is not reached" in caplog.text
    assert not manifest_of(tmp_path)["stopping"]["enough"]


def test_another_plan_under_the_folder_is_refused(run) -> None:
    run("runs=20")
    with pytest.raises(ProgipError, match="sampling was uniform, is now importance"):
        run("runs=20", "sampling=importance")


def test_campaigns_of_different_plans_are_not_merged(run, tmp_path: Path) -> None:
    run("runs=20")
    run("runs=20", "sampling=importance", "name=other", "pass=backward")
    (tmp_path / "other").rename(tmp_path / "campaign" / "other")
    loaded = Campaign.load(tmp_path / "campaign")
    assert len(loaded.cells) == 1
    assert any("in sampling (uniform and importance)" in text for text in loaded.warnings)


@pytest.mark.parametrize("plan", ["uniform", "importance", "stratified"])
def test_weights_that_do_not_match_the_plan_are_refused(run, tmp_path: Path, plan: str) -> None:
    run("runs=150", f"sampling={plan}", *(NEYMAN[1:2] if plan == "stratified" else ()))
    path = next(folder_of(tmp_path).glob("part-*"))
    table = pq.read_table(path)
    place = table.schema.get_field_index("weight")
    wrong = pa.array(table["weight"].to_numpy() * 9.0)
    pq.write_table(table.set_column(place, "weight", wrong), path)
    with pytest.raises(ProgipError, match="weights do not match the sampling plan"):
        Campaign.load(tmp_path / "campaign")
    with pytest.raises(ProgipError, match="weights do not match the sampling plan"):
        current_precision(folder_of(tmp_path))


def test_size_from_a_margin(run, caplog) -> None:
    with caplog.at_level(logging.INFO, "progip"):
        rows = run("sizing.margin=0.1", "sizing.confidence=0.9")
    assert len(rows) == 68  # 1.645^2 / 4 / .1^2
    assert "68 runs of" in caplog.text
    assert "90 % margin 0.1 at worst" in caplog.text
    with caplog.at_level(logging.INFO, "progip"):
        run("sizing.margin=0.1", "sizing.confidence=0.9", "name=again")
    assert " here" in caplog.text  # the time, now that it is known


def test_sizes() -> None:
    assert Sizing(margin=0.01).size(5, 10**9) == 9604
    assert Sizing(margin=0.1, relative=True, rate=0.01).size(5, 10**9) == 38_031
    assert Sizing(margin=0.01, finite=True).size(5, 10_000) == 4900
    assert Sizing().size(77, 10) == 77
    assert Sizing(rate=0.01).announcement(100, 10**6, Speed(0.0, 2.0)).endswith("about 3 min here")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"margin": 0}, "sizing.margin=0"),
        ({"margin": 1.01}, "sizing.margin=1.01"),
        ({"confidence": 0}, "confidence is 0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"rate": 0}, "sizing.rate=0"),
        ({"max_runs": 0}, "sizing.max_runs=0"),
    ],
)
def test_wrong_sizes_are_named(options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        Sizing(**options)


def test_a_margin_beyond_the_budget_is_said() -> None:
    with pytest.raises(ProgipError, match=r"needs 9,604 runs .* which buy a margin of 0\.031"):
        Sizing(margin=0.01, max_runs=1000).size(5, 10**9)
    with pytest.raises(ProgipError, match="runs=2000 needs"):
        Sizing(max_runs=1000).size(2000, 10**9)


def test_unknown_names_are_refused(run, tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match=r"stopping.of='speed' is not one of"):
        run("runs=5", "stopping=alpha_spending", "stopping.of=speed")
    run("runs=5")
    with pytest.raises(ProgipError, match="quantity 'speed'"):
        current_precision(folder_of(tmp_path), "speed")
    with pytest.raises(ProgipError, match="estimand='bit'"):
        Campaign.load(tmp_path / "campaign", estimand="bit")
    with pytest.raises(ProgipError, match="not the folder of a cell"):
        current_precision(tmp_path)
