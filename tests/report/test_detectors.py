"""Detection against false alarms: curves counted one by one, the section, the figure."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
from campaign_factory import Row, Write, runs

from progip import records
from progip.report import Campaign
from progip.report.detection_curves import detected_at, detection_curves
from progip.report.figures import detection
from progip.report.figures.base import Absent, Figure
from progip.report.sections.detectors import AT, detectors_section
from progip.statistics import rate, weighted_rate
from progip.storage import store

SETTING = ("digits", "digits_unseen", "single_bit_flip", "fp32", "all")
IMAGES = 40
DRAW = np.random.default_rng(5)
SCORES = {  # of clean images; ID and OOD apart, and some evaluation images beyond the calibration
    (population, split): DRAW.normal(mean, 1 + (split == "evaluation"), IMAGES)
    for population, mean in (("id", 3.0), ("ood", 2.0))
    for split in ("calibration", "evaluation")
}
FAULTY = np.append(DRAW.normal(3, 6, 59), math.nan)
WEIGHTS = DRAW.uniform(0.2, 3, 60)
OPEN = {"_target_": "progip.protections.open_set.OpenSet", "score": "detector", "q": 0.0}
PROTECTIONS = {
    "open_set": OPEN | {"name": "open_set"},
    "facer_like": {"_target_": "progip.protections.facer_like.FacerLike", "name": "facer_like"},
    "elsewhere": {"_target_": "not_installed.Protection", "name": "elsewhere"},
}


def clean_table() -> pa.Table:
    rows = [
        {"population": population, "split": split, "sample_index": i, "label": 0, "class": 0}
        | {"score": float(score), "grad_max": 1.0}
        | dict.fromkeys(("nonfinite_logits", "nonfinite_gradient", "nonfinite_score"), False)
        | dict.fromkeys(("range_excess_first", "range_excess_second"), 0.0)
        for (population, split), scores in SCORES.items()
        for i, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.CLEAN)


def rows_of() -> list[Row]:
    rows = runs(classification="x." * 30, harmless="." * 40)
    for row, score, weight in zip(rows, FAULTY, WEIGHTS, strict=False):
        row |= {"faulty_score": float(score), "weight": float(weight)}
        row["nonfinite_logits"] = math.isnan(score)
    return rows


@pytest.fixture
def watched(campaign: Path, write_cell: Write) -> Path:
    """Three protections and both populations; what facer_like measured is its rows' own column."""
    for population in records.POPULATIONS:
        for name, options in PROTECTIONS.items():
            extra = {"config": {"protection": options}, "thresholds": {"ood": 0.1}}
            folder = write_cell(rows_of(), protection=name, population=population, manifest=extra)
            place = folder.parent / store.EXECUTION
            place.mkdir(exist_ok=True)
            pq.write_table(clean_table(), place / store.CLEAN)
            if name == "facer_like":
                (part,) = folder.glob("part-*")
                table = pq.read_table(part)
                anomaly = -np.arange(len(table), dtype=np.float32)
                pq.write_table(table.append_column("anomaly", pa.array(anomaly)), part)
                mine = {"sample_index": np.arange(IMAGES), "anomaly": np.arange(IMAGES) - 45.0}
                pq.write_table(pa.table(mine), folder / store.CLEAN)
    return campaign


def test_curves_are_those_of_moved_limits(watched: Path) -> None:
    curves = detection_curves(Campaign.load(watched))
    mine = curves[(curves["protection"] == "open_set") & ~curves["own"]]
    assert len(mine) > 20
    usual = SCORES["id", "calibration"]
    low, high = usual.min(), usual.max()

    def alarms(scores: np.ndarray, threshold: float) -> np.ndarray:
        if np.isinf(threshold):
            return np.ones(len(scores), dtype=bool)
        slack = threshold * (high - low)
        return ~((scores >= low - slack) & (scores <= high + slack))

    for point in mine.itertuples():
        # just above each threshold: a clean image lies on every one of them
        threshold = point.threshold + 1e-9
        found = weighted_rate(np.tile(alarms(FAULTY, threshold), 2), np.tile(WEIGHTS, 2))
        expected = found.estimate, found.low, found.high, found.n
        assert (
            point.detected, point.detected_low, point.detected_high, point.detected_n,
        ) == pytest.approx(expected)  # fmt: skip
        for population in records.POPULATIONS:
            count = int(alarms(SCORES[population, "evaluation"], threshold).sum())
            clean = rate(count, IMAGES)
            assert getattr(point, f"clean_{population}") == pytest.approx(clean.estimate)
            assert getattr(point, f"clean_{population}_high") == pytest.approx(clean.high)
    assert mine["clean_id"].min() == mine["clean_ood"].min() == 0


def test_the_own_point_is_that_of_the_rows_and_a_class_elsewhere_has_no_other(
    watched: Path,
) -> None:
    curves = detection_curves(Campaign.load(watched))
    (own,) = curves[curves["protection"] == "elsewhere"].itertuples()
    seen = np.arange(60) % 2 == 0  # one alarm in two
    assert own.detected == pytest.approx(weighted_rate(seen, WEIGHTS).estimate)
    assert (own.clean_id, own.clean_id_n, own.clean_ood_n) == (3 / 200, 200, 200)
    assert own.own


def test_what_a_protection_measured_orders_its_runs(watched: Path) -> None:
    curves = detection_curves(Campaign.load(watched))
    mine = curves[(curves["protection"] == "facer_like") & ~curves["own"]]
    # clean anomalies -45 to -6, of failing runs 0 to -59: the first six lie above all clean ones
    best = mine.sort_values("threshold").iloc[-1]
    assert (best["threshold"], best["clean_id"]) == (-6, 0)
    assert best["detected"] == pytest.approx(weighted_rate(np.arange(60) < 6, WEIGHTS).estimate)
    at = detected_at(curves, 0.05).set_index("protection")
    assert at.loc["facer_like", "clean_id"] == 2 / 40
    assert set(at.index) == {"facer_like", "open_set"}


def test_the_section_keeps_false_alarms_apart(watched: Path) -> None:
    section = detectors_section(Campaign.load(watched))
    assert section is not None
    block = section.blocks[0]
    assert len(block.headers) == len(block.rows[0])
    lines = [dict(zip(block.headers, row, strict=True)) for row in block.rows]
    by_name = {line["protection"]: line for line in lines[::2]}
    assert {(n["detected"], n["clean ID"], n["harmless"]) for n in lines[1::2]} == {
        ("120", "200", "80")
    }
    assert set(by_name) == set(PROTECTIONS)
    for name, row in by_name.items():
        assert row["clean ID"].startswith("1.5 (")
        assert row["clean OOD"].startswith("1.5 (")
        assert row["harmless"].startswith("0 (")
        assert (row[AT] == "–") == (name == "elsewhere")
    data = section.data.set_index("protection")
    assert data.loc["open_set", "clean_id_at"] <= 0.01
    assert list(data["overall_accuracy_n"]) == 3 * [120]


def test_the_figure_says_what_it_shows_and_is_drawn_from_its_csv(watched: Path) -> None:
    (figure,) = detection(Campaign.load(watched), SETTING)
    assert isinstance(figure, Figure)
    assert "digits_resnet odin elsewhere: detects" in figure.alt
    assert "clean OOD images 1.50 %" in figure.alt
    axes = figure.draw(figure.data).axes
    assert len(axes) == 2
    assert [len(panel.get_lines()) > 3 for panel in axes] == [True, True]


def test_published_detection_is_a_level_line(campaign: Path, write_cell: Write) -> None:
    for name in ("none", "progip", "open_set"):
        write_cell(runs(detection="x.", harmless="."), protection=name)
    (usual,) = detection(Campaign.load(campaign), SETTING)
    assert not usual.data["protection"].str.contains("publ").any()
    (figure,) = detection(Campaign.load(campaign, beside=True), SETTING)
    (line,) = figure.data[figure.data["protection"] == "progip, publ."].itertuples()
    assert line.detected == pytest.approx((10_127 - 128) / 10_127)  # of the published counts
    assert math.isnan(line.clean_id)
    assert "progip, publ.: detects 98.74 %" in figure.alt
    for panel in figure.draw(figure.data).axes:
        level = [one for one in panel.get_lines() if one.get_label() == "progip, publ."]
        assert [set(one.get_ydata()) for one in level] == [{100 * line.detected}]


def test_one_protection_has_neither(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x"), protection="progip")
    loaded = Campaign.load(campaign)
    assert detectors_section(loaded) is None
    assert detection(loaded, SETTING) == []


def test_without_a_failure_there_is_no_curve(campaign: Path, write_cell: Write) -> None:
    for name in ("progip", "ranger"):
        write_cell(runs(harmless="x.."), protection=name)
    (absent,) = detection(Campaign.load(campaign), SETTING)
    assert isinstance(absent, Absent)
    assert "no failure" in absent.reason
