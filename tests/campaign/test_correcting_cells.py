"""Correcting protections in campaigns: the same faults, runs of their own, what the report says."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import schemas
from pandas.testing import assert_frame_equal

from progip import records
from progip.analysis.error_rates import over_maps, rate_table, ratio
from progip.campaign import subject
from progip.campaign.execution import Execution
from progip.campaign.replay import replay
from progip.config import cell_settings, composed
from progip.engine.incremental import IncrementalExecutor, IncrementalRounds
from progip.engine.reference import ReferenceExecutor
from progip.engine.rounds import RoundExecutor
from progip.report import Campaign
from progip.report.figures import rates as rates_figure
from progip.report.sections.error_rates import rates_section
from progip.report.writing import build_sections
from progip.statistics import rate
from progip.storage import store

ROOT = Path(__file__).resolve().parents[2]
CELL = ("ood_method=none", "fault_model=six_bits", "fault_model.rate=1e-3", "runs=786")
IMAGES = 393


def test_the_same_faults_in_runs_of_their_own(run, tmp_path: Path) -> None:
    rows = {p: run(*CELL, f"protection={p}") for p in ("none", "ranger_clip", "ranger")}
    bare, mended, watched = rows.values()
    assert list(mended) == schemas.result_schema(schemas.MANY, schemas.CORRECTION).names
    assert list(bare) == list(watched) == schemas.result_schema(schemas.MANY).names
    for name in ("run_id", "sample_index", "hits", "fault_digest"):
        assert mended[name].equals(bare[name]), name
    assert_frame_equal(bare[schemas.OUTCOME.names], watched[schemas.OUTCOME.names])
    folders = {p.parent.name for p in tmp_path.rglob("_execution*/manifest.json")}
    assert folders == {"_execution", "_execution-ranger_clip"}
    assert bare["class_changed"].mean() > 0.5
    assert mended["class_changed"].mean() < 0.05
    assert (mended["alarm"] == mended["flagged"]).all()
    assert (mended["corrected_hit"] <= mended["corrected"]).all()
    assert (mended["hits_corrected"] <= mended["hits"]).all()
    assert (mended["corrected_hit"] > 0).sum() > 500


def test_a_fit_is_made_once(run, caplog: pytest.LogCaptureFixture) -> None:
    cell = (*CELL[:3], "runs=8", "protection=ranger_zero", "protection.coverage=0.99")
    with caplog.at_level(logging.INFO):
        first = run(*cell, "name=one")
        subject._ready.clear()
        second = run(*cell, "name=two")
        subject._ready.clear()
        run(*cell[:3], "runs=8", "protection=ranger_zero", "protection.coverage=0.98", "name=three")
    assert_frame_equal(first, second)
    fits = [r.getMessage() for r in caplog.records if "protection ranger_zero" in r.getMessage()]
    assert [("loaded" in fit) for fit in fits] == [False, True, False]


@pytest.mark.parametrize("protection", ["ranger_clip", "gradient_statistics"])
@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_single_flips_in_every_pass(run, tmp_path: Path, protection: str, fault_pass: str) -> None:
    cell = ("runs=60", f"pass={fault_pass}", f"protection={protection}", "fault_model.bits=[29,30]")
    rows = run(*cell)
    assert list(rows) == schemas.result_schema(schemas.CORRECTION).names
    settings = cell_settings(
        composed([f"outputs={tmp_path}", "batch_size=16", *cell], ROOT / "conf")
    )
    for run_id in (3, 40):
        assert replay(settings, run_id).differences == []
    if fault_pass == "backward":
        assert not rows["hits_corrected"].any()
    else:
        assert rows["hits_corrected"].any()
        assert rows["hits_corrected"].max() == 1


@pytest.mark.parametrize("protection", ["ranger_clip", "gradient_statistics", "ranger_bound"])
@pytest.mark.parametrize("fault", ["single_bit_flip", "one_bit", "parameter_bit"])
def test_runs_start_from_golden_values(
    run, monkeypatch: pytest.MonkeyPatch, protection: str, fault: str
) -> None:
    """And give the rows of runs that are executed whole."""
    inner, chosen = Execution.__init__, []

    def watched(self: Execution, *args: object) -> None:
        inner(self, *args)
        chosen.append(type(self._executor))

    monkeypatch.setattr(Execution, "__init__", watched)
    options = ["runs=60", f"fault_model={fault}", f"protection={protection}"]
    options += {
        "single_bit_flip": ["fault_model.bits=[29,30]"],
        "one_bit": ["fault_model.rate=1e-4"],
        "parameter_bit": ["pass=all", "fault_model.bits=[30]"],
    }[fault]
    quick = run(*options, "name=quick", "self_check=0.2")
    whole = run(*options, "name=whole", "executor=reference")
    assert chosen[0] in (IncrementalExecutor, IncrementalRounds)
    assert chosen[1] in (ReferenceExecutor, RoundExecutor)
    assert_frame_equal(quick, whole)
    assert quick["flagged"].any()


def test_a_null_campaign_of_a_protected_network(run) -> None:
    rows = run("fault_model=none", "protection=gradient_statistics", "runs=60")
    for name in ("class", "score", "grad_max"):
        assert rows[f"faulty_{name}"].equals(rows[f"golden_{name}"]), name


def test_the_report_of_rates(run, tmp_path: Path) -> None:
    found = {}
    for protection in ("none", "ranger_clip"):
        for at in ("1e-4", "1e-3"):
            cell = (*CELL[:2], f"fault_model.rate={at}", "runs=786", f"protection={protection}")
            found[protection, float(at)] = run(*cell, "name=rates")
    run("runs=20", "name=rates", "ood_method=none", "protection=ranger_clip")
    run("runs=20", "name=rates", "ood_method=none", "protection=none")
    campaign = Campaign.load(tmp_path / "rates")
    table = rate_table(campaign.folders).set_index(["protection", "rate"])
    assert len(table) == 4
    for key, rows in found.items():
        line = table.loc[key]
        right = rows["faulty_class"] == rows["label"]
        assert line["accuracy"] == pytest.approx(right.mean())
        assert line["accuracy_low"] < line["accuracy"] < line["accuracy_high"] or right.all()
        assert line["sdc"] == pytest.approx(rows["class_changed"].mean())
        assert (line["maps"], line["images"], line["runs"]) == (2, IMAGES, 786)
        assert line["hits"] == rows["hits"].sum()
    clip, rows = table.loc["ranger_clip", 1e-3], found["ranger_clip", 1e-3]
    assert clip["precision"] == pytest.approx(rows["corrected_hit"].sum() / rows["corrected"].sum())
    assert clip["recall"] == pytest.approx(rows["hits_corrected"].sum() / rows["hits"].sum())
    harmful = found["none", 1e-3]["class_changed"]
    assert clip["alarm_harmful"] == pytest.approx(rows["alarm"][harmful].mean())
    assert clip["alarm_harmful_n"] == harmful.sum()
    assert np.isnan(table.loc["none", 1e-3]["alarm_hit"])
    section = rates_section(campaign)
    assert section is not None
    assert [row[0] for row in section.blocks[0].rows] == ["0", "0.0001", "0.001"]
    names = [s.name for s in build_sections(campaign)]
    assert {"rates", "overall"} <= set(names)
    (figure,) = rates_figure(campaign)
    assert len(figure.data) == 4
    assert figure.plot().axes


def test_a_campaign_of_verdicts_is_reported_with_a_correction(run, tmp_path: Path) -> None:
    """Its threshold is another one: the network is another one."""
    for protection in ("none", "progip", "gradient_statistics"):
        run(f"protection={protection}", "runs=60", "fault_model.bits=[29,30]")
    (path,) = tmp_path.glob("*/*/*/*/gradient_statistics/manifest.json")
    assert json.loads(path.read_text())["identity"]["correction"]["name"] == "gradient_statistics"
    campaign = Campaign.load(tmp_path / "campaign")
    assert not [text for text in campaign.warnings if "base metrics" in text]
    notes = [n for s in build_sections(campaign) for b in s.blocks for n in b.notes]
    assert any("gradient_statistics corrects" in str(note) for note in notes)
    said = ["".join(map(str, note)) for note in notes]
    assert any(text.startswith("With the corrections of gradient_statistics") for text in said)
    assert not any(text.startswith("gradient_statistics notices") for text in said)
    assert len(campaign.executions) == 1
    assert store.execution_folder(path.parent, "x").name == "_execution-x"


def test_intervals_over_maps_cover() -> None:
    """Against simulation: fixed images with very different risks, a few maps."""
    random = np.random.default_rng(2)
    risk = np.concatenate([np.full(150, 0.02), np.full(50, 0.9)])
    truth, covered, widths = risk.mean(), 0, []
    images = np.tile(np.arange(200), 3)
    for _ in range(400):
        interval = over_maps(random.random(600) < risk[images], images)
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
    assert 0.92 <= covered / 400 <= 0.99
    plain = rate(int(600 * truth), 600)
    assert np.mean(widths) < 0.75 * (plain.high - plain.low)  # what the repeated images are worth
    assert over_maps(np.zeros(600, bool), images).high > 0  # never of no width
    once = over_maps(random.random(200) < risk, np.arange(200))
    assert once == rate(once.events, 200)


def test_ratio_of_sums() -> None:
    part, whole = np.array([1, 0, 4, 2]), np.array([2, 3, 5, 2])
    found = ratio(part, whole)
    assert (found.estimate, found.n, found.events) == (7 / 12, 12, 7)
    assert found.low < 7 / 12 < found.high
    assert pd.isna(ratio(part * 0, whole * 0).estimate)
