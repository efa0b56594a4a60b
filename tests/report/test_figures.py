import math
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
from campaign_factory import Row, Write, runs
from pandas.testing import assert_frame_equal

from progip import records
from progip.report import Campaign
from progip.report.figures import (
    Absent,
    Figure,
    bits,
    build_figures,
    passes,
    precision,
    scores,
    style,
    tradeoff,
    vulnerability,
)
from progip.statistics import rate
from progip.storage import store

SETTING = ("digits", "digits_unseen", "single_bit_flip", "fp32", "all")
#: score 0.1 .. 0.3 of clean calibration images, gradients 1 .. 2, no activation out of range
CLEAN = [
    {
        "population": population,
        "split": split,
        "sample_index": i,
        "label": 0,
        "class": 0,
        "score": 0.1 + 0.02 * i,
        "grad_max": 1 + 0.1 * i,
        "nonfinite_logits": False,
        "nonfinite_gradient": False,
        "nonfinite_score": False,
        "range_excess_first": -0.1 if split == "calibration" else 0.05 * i,
        "range_excess_second": -0.2,
    }
    for population in records.POPULATIONS
    for split in ("calibration", "evaluation")
    for i in range(11)
]
PROTECTIONS = {
    "progip": {"_target_": "progip.protections.progip.ProGIP", "name": "progip"},
    "ranger": {"_target_": "progip.protections.ranger.Ranger", "name": "ranger", "margin": 0.22},
}
LIMITS = {
    "progip": {"gradient_low": 1 / 1.1, "gradient_high": 2.2, "score_high": 0.32},
    "ranger": {"range_excess": 0.22},
    "none": {},
}


def faulty() -> list[Row]:
    """Four failures: seen by gradient; by score; by range and score; by none. 96 harmless."""
    rows = runs(classification="....", harmless="." * 96)
    rows[0] |= {"faulty_grad_max": 5.0, "bit": 31}
    rows[1] |= {"faulty_score": 0.5, "bit": 30}
    rows[2] |= {"faulty_score": math.nan, "range_excess_first": 7.0, "nonfinite_score": True}
    rows[3] |= {"layer": "fc", "bit": 2}
    return rows


@pytest.fixture
def judged(campaign: Path, write_cell: Write) -> Path:
    """One execution watched by three protections, with its clean evidence."""
    seen = {"none": (), "progip": (0, 1, 2), "ranger": (2,)}
    for name, found in seen.items():
        rows = faulty()
        for run in found:
            rows[run]["alarm"] = True
        config = {"protection": PROTECTIONS[name]} if name in PROTECTIONS else {}
        limits = {"ood": 0.126, **LIMITS[name]}
        extra = {"config": config, "thresholds": limits, "layers": [{"layer": "conv1"}]}
        folder = write_cell(rows, protection=name, manifest=extra)
        place = folder.parent / store.EXECUTION
        place.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(CLEAN, schema=schemas.CLEAN), place / store.CLEAN)
    return campaign


def one(found: list[Figure | Absent]) -> Figure:
    (figure,) = found
    assert isinstance(figure, Figure)
    return figure


def test_passes(judged: Path) -> None:
    data = one(passes(Campaign.load(judged), SETTING)).data.set_index(["kind", "protection"])
    for protection, left in (("none", 4), ("progip", 1), ("ranger", 3)):
        row, expected = data.loc[("classification", protection)], rate(left, 100)
        assert (row["left"], row["n"]) == (left, 100)
        assert (row["estimate"], row["low"], row["high"]) == pytest.approx(
            (expected.estimate, expected.low, expected.high)
        )
        assert data.loc[("detection", protection), "estimate"] == 0
        assert data.loc[("detection", protection), "high"] > 0.03


def test_where_the_network_is_vulnerable(judged: Path) -> None:
    campaign = Campaign.load(judged)
    data = one(vulnerability(campaign, SETTING)).data
    found = {(r.layer, r.bit): (r.failures, r.correct) for r in data.itertuples()}
    assert found == {("conv1", 30): (2, 98), ("conv1", 31): (1, 1), ("fc", 2): (1, 1)}
    assert list(data["layer_number"]) == [0, 0, 1]  # in the order of the network
    expected = rate(2, 98)
    row = data[data["bit"] == 30].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    by_bit = one(bits(campaign, SETTING)).data.set_index("bit")
    assert dict(by_bit["failures"]) == {2: 1, 30: 2, 31: 1}


def test_weights_count_in_the_map(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection=".", harmless="...")
    for row, weight in zip(rows, (0.5, 1.0, 2.0, 0.5), strict=True):
        row["weight"] = weight
    write_cell(rows)
    data = one(vulnerability(Campaign.load(campaign), SETTING)).data
    assert data["estimate"].tolist() == [0.125]
    # p (1 - p) / variance, variance = sum w^2 (I - p)^2 / (sum w)^2
    spread = (0.25 * 0.875**2 + (1 + 4 + 0.25) * 0.125**2) / 16
    assert data["effective_n"].item() == pytest.approx(0.125 * 0.875 / spread)


def test_trade_off_passes_through_the_alarms_of_the_rows(judged: Path) -> None:
    campaign = Campaign.load(judged)
    data = one(tradeoff(campaign, SETTING)).data
    own = data[data["own"]].set_index(["protection", "option"])
    assert own.loc[("progip", "gradient_margin"), "detected"] == 3 / 4
    assert own.loc[("progip", "score_margin"), "detected"] == 3 / 4
    assert own.loc[("ranger", "margin"), "detected"] == 1 / 4
    # evaluation images leave their range by 0, 0.05 ... 0.5: six of eleven by more than 0.22
    assert own.loc[("ranger", "margin"), "false_alarms"] == pytest.approx(6 / 11)
    assert own.loc[("progip", "score_margin"), "false_alarms"] == 0
    ranger = data[data["protection"] == "ranger"].sort_values("value")
    assert (ranger["detected"].diff().dropna() <= 0).all()
    assert ranger["false_alarms"].iloc[0] == ranger["detected"].iloc[0] == 1
    # at a margin of 1 the limit is 0.5, so the second failure passes; that of no number never does
    wide = data[(data["option"] == "score_margin") & (data["value"] > 0.9)]
    assert wide["detected"].tolist() == [2 / 4]
    assert set(campaign.cells["done"]) == {100}


def test_scores(judged: Path) -> None:
    data = one(scores(Campaign.load(judged), SETTING)).data
    lost = data[(data["kind"] == "faulty") & data["low"].isna()].iloc[0]
    assert (lost["count"], lost["failures"]) == (1, 1)
    bins = data[(data["kind"] == "faulty") & data["low"].notna()]
    assert bins["count"].sum() == 99
    at = bins[(bins["low"] <= 0.2) & (bins["high"] > 0.2)].iloc[0]
    assert (at["count"], at["failures"]) == (98, 2)
    assert bins[np.isinf(bins["high"])]["count"].item() == 1  # 0.5 lies beyond
    clean = data[(data["kind"] == "clean")]
    assert clean["count"].sum() == 11
    limits = data[data["kind"] == "threshold"].set_index("name")["low"]
    assert dict(limits) == {"ood": 0.126, "progip score_high": 0.32}


def test_precision_follows_the_first_runs(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection="x" * 10, harmless="." * 240)
    order = np.random.default_rng(1).permutation(250)
    rows = [{**rows[place], "run_id": run} for run, place in enumerate(order)]
    write_cell(rows, shards=3, protection="progip")
    write_cell(rows, shards=2, protection="progip", fault_pass="backward")
    data = one(precision(Campaign.load(campaign), SETTING)).data
    mine = data[(data["protection"] == "none") & (data["rate"] == "failure_rate")]
    assert list(mine["runs_a_cell"]) == [100, 200, 250]
    for row in mine.itertuples():
        failed = 2 * sum(r.get("detection_failure", False) for r in rows[: row.runs_a_cell])
        expected = rate(failed, 2 * row.runs_a_cell)
        assert row.runs == row.n == 2 * row.runs_a_cell
        assert row.half_width == pytest.approx((expected.high - expected.low) / 2)


def test_every_figure_is_drawn_from_its_csv_alone(judged: Path, tmp_path: Path) -> None:
    found = [f for f in build_figures(Campaign.load(judged)) if isinstance(f, Figure)]
    assert [f.name for f in found] == [
        *("overview", "passes", "vulnerability", "bits", "tradeoff", "detection"),
        *("scores", "precision"),
    ]
    for figure in found:
        files = figure.write(tmp_path)
        again = pd.read_csv(StringIO((tmp_path / f"{figure.name}.csv").read_text()))
        assert_frame_equal(figure.data, again, check_dtype=False)
        images = []
        for data in (figure.data, again):
            sink = BytesIO()
            figure.draw(data).savefig(sink, format="png", dpi=50)
            images.append(sink.getvalue())
        assert images[0] == images[1], figure.name
        first = {path: path.read_bytes() for path in files}
        assert {path.suffix for path in files} == {".svg", ".pdf", ".png", ".csv"}
        assert {path: path.read_bytes() for path in figure.write(tmp_path)} == first
        assert figure.alt
        assert figure.caption


def test_what_cannot_be_shown_says_why(campaign: Path, write_cell: Write) -> None:
    write_cell([], planned=10)
    reasons = {
        f.name: f.reason for f in build_figures(Campaign.load(campaign)) if isinstance(f, Absent)
    }
    assert set(reasons) == {
        *("overview", "vulnerability", "bits", "tradeoff", "scores", "precision"),
    }
    assert "same command" in reasons["scores"]


def test_settings_get_figures_of_their_own(judged: Path, write_cell: Write) -> None:
    write_cell(runs(detection="."), fault_model="stuck_at")
    names = [figure.name for figure in build_figures(Campaign.load(judged))]
    assert {"passes_1", "passes_2", "tradeoff_1", "tradeoff_2"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "names",
    [
        ["none", "progip", "progip_both", "ranger", "mine", "yours"],
        ["none", "ranger_clip", "ranger_published", "ranger_zero", "gradient_statistics", "mine"],
    ],
)
def test_every_protection_of_a_figure_has_a_colour_and_a_line_of_its_own(names: list[str]) -> None:
    looks = style.looks(names)
    assert set(looks) == set(names)
    assert len({look.color for look in looks.values()}) == len(names)
    assert len({str(look.line) for look in looks.values()}) == len(names)
