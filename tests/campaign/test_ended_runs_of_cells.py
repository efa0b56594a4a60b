"""Weighted termination on whole cells of the embedded demo."""

import logging
from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from test_planned_cells import manifest_of

from progip.campaign.replay import replay
from progip.config import cell_settings, composed
from progip.engine.incremental import NotTraceable
from progip.errors import ProgipError
from progip.report import Campaign
from progip.report.sections.methods import methods_section

ROOT = Path(__file__).resolve().parents[2]
ENDED = ("sampling.roulette=0.2", "sampling.roulette_pilot=100", "pass=second_forward")


def test_a_cell_is_the_same_however_it_is_run(run, tmp_path: Path) -> None:
    once = run("runs=300", *ENDED, "name=once", "self_check=0.2")
    run("runs=70", "shard_size=40", *ENDED, "name=parts")  # ends within the pilot
    run("runs=170", "shard_size=40", *ENDED, "name=parts")
    assert_frame_equal(run("runs=300", "shard_size=64", *ENDED, "name=parts"), once)
    assert (once["roulette"][:100] == 1).all()
    assert set(once["roulette"][100:]) == {0.0, 1.0, 5.0}
    assert (once["weight"] == 1).all()
    said = manifest_of(tmp_path, "once")["sampling"]["roulette"]
    assert said["probability"] == 0.2
    assert said["whole_runs"] == 100
    assert 0 < said["at_fault"] <= 0.1
    ended = once[once["roulette"] == 0]
    assert (ended["faulty_score"] == ended["golden_score"]).all()
    assert (ended["value_before"] != ended["value_after"]).all()
    assert (ended["alarm"] == ended["clean_alarm"]).all()
    assert not ended["detection_failure"].any()


def test_kept_rows_are_those_of_a_cell_without_it(run) -> None:
    whole, some = run("runs=300", "pass=second_forward"), run("runs=300", *ENDED, "name=some")
    kept = (some["roulette"] > 0).to_numpy()
    assert kept.sum() < 300
    names = [name for name in whole.columns if not whole[name].isna().all()]
    assert_frame_equal(some.loc[kept, names], whole.loc[kept, names])


def test_rates_tables_and_other_protections(run, tmp_path: Path) -> None:
    first = run("runs=600", *ENDED)
    second = run("runs=600", *ENDED, "protection=ranger")
    assert_frame_equal(first[["run_id", "roulette"]], second[["run_id", "roulette"]])
    cells = Campaign.load(tmp_path / "campaign").cells
    assert (cells["done_w"] == 600).all()  # ended runs count, as fault-free ones
    factor = first["roulette"].to_numpy()
    failed = (first["detection_failure"] | first["classification_failure"]).to_numpy()
    progip = cells[cells["protection"] == "progip"].iloc[0]
    assert progip["failures_w"] == pytest.approx((factor * failed).sum())
    harmless = first["originally_correct"].to_numpy() & ~failed
    expected = (factor * harmless).sum() + ((1 - factor) * first["originally_correct"]).sum()
    assert progip["harmless_correct_w"] == pytest.approx(expected)
    methods = methods_section(Campaign.load(tmp_path / "campaign"))
    notes = " ".join(map(str, methods.blocks[0].notes))
    assert "went on with probability 0.2" in notes
    assert "[Sarndal]" in str(methods.blocks[1].notes)


def test_under_a_plan_with_strata(run, tmp_path: Path) -> None:
    plan = ("sampling=stratified", "sampling.pilot=100", "sampling.roulette=0.5")
    rows = run("runs=400", *plan, "sampling.roulette_pilot=150", "pass=second_forward")
    assert (rows["roulette"][:150] == 1).all()
    assert (rows["roulette"][150:] == 0).any()
    cells = Campaign.load(tmp_path / "campaign").cells
    assert cells["done_w"].iloc[0] == pytest.approx(400)


def test_replay_tells_ended_runs(run, tmp_path: Path) -> None:
    rows = run("runs=300", *ENDED)
    overrides = [f"outputs={tmp_path}", "batch_size=16", "runs=300", *ENDED]
    settings = cell_settings(composed(overrides, ROOT / "conf"))
    ended, kept = (int(np.flatnonzero(rows["roulette"] == r)[0]) for r in (0, 5))
    assert replay(settings, kept).differences == []
    with pytest.raises(ProgipError, match="was ended early"):
        replay(settings, ended)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("executor=reference",), "executes every run whole"),
        (("protection=ranger_zero",), "corrects values"),
        (("protection=facer_like", "probes=[layer_traces]"), "measures runs"),
        (("fault_model=word",), "many values at once"),
        (("sampling.roulette=0",), "above 0"),
        (("sampling.roulette_pilot=9",), "too few"),
    ],
)
def test_what_does_not_go_with_it(run, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        run("runs=20", *ENDED, *overrides)


def test_a_network_that_cannot_be_traced_ends_no_run(run, monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise NotTraceable("for this test")

    monkeypatch.setattr("progip.campaign.subject.loaded_or_traced", refuse)
    monkeypatch.setattr("progip.campaign.subject._ready", {})
    with caplog.at_level(logging.WARNING, "progip"):
        rows = run("runs=120", *ENDED)
    assert "ends no run early" in caplog.text
    assert (rows["roulette"] == 1).all()
