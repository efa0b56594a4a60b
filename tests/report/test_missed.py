"""What protections miss, by bits, distance from the threshold and layer: counted by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
from campaign_factory import Row, Write, runs
from statsmodels.stats.proportion import proportion_confint

from progip.analysis.missed import BITS, LAYER, MARGIN, NOT_FINITE, missed
from progip.report import Campaign
from progip.report.sections.missed import missed_section
from progip.statistics import weighted_rate
from progip.storage import store

SETTING = ("digits", "digits_unseen", "single_bit_flip", "fp32", "all")
THRESHOLD = 0.126
IMAGES = 50
#: image i is the (i + 1)th nearest, in turns above and below; the last has no score
SCORES = [THRESHOLD + (i + 1) * 0.01 * (-1) ** i for i in range(IMAGES - 1)] + [float("nan")]
HITS = [  # image, layer, bit, weight, noticed by the first protection, by the second
    (0, "conv1", 30, 1.0, True, True),
    (0, "conv1", 30, 3.0, False, True),
    (1, "conv1", 24, 2.0, False, False),
    (7, "fc", 31, 1.0, True, False),
    (48, "fc", 3, 0.5, False, True),
    (49, "fc", 30, 1.0, True, True),
]


@pytest.fixture
def watched(campaign: Path, write_cell: Write) -> Path:
    for place, name in ((None, "none"), (4, "progip"), (5, "ranger")):
        rows: list[Row] = runs(detection="." * len(HITS), harmless=".." if place is None else "x.")
        for row, hit in zip(rows, HITS, strict=False):
            image, layer, bit, weight, *_ = hit
            row |= {"sample_index": image, "layer": layer, "bit": bit, "weight": weight}
            row["alarm"] = bool(place and hit[place])
        folder = write_cell(rows, protection=name)
        execution = folder.parent / store.EXECUTION
        execution.mkdir(exist_ok=True)
        clean = [
            {"population": population, "split": split, "sample_index": i, "label": 0, "class": 0}
            | {"score": score if population == "id" and split == "evaluation" else THRESHOLD}
            | {"grad_max": 1.0, "range_excess_first": 0.0, "range_excess_second": 0.0}
            | dict.fromkeys(("nonfinite_logits", "nonfinite_gradient", "nonfinite_score"), False)
            for population in ("id", "ood")
            for split in ("calibration", "evaluation")
            for i, score in enumerate(SCORES)
        ]
        table = pa.Table.from_pylist(clean, schema=schemas.CLEAN)
        pq.write_table(table, execution / store.CLEAN)
    return campaign


def test_every_group_is_counted(watched: Path) -> None:
    found = missed(Campaign.load(watched), SETTING)
    groups = {by: list(dict.fromkeys(part["group"])) for by, part in found.groupby("by")}
    assert groups[BITS] == ["fraction 0–11", "exponent 23–26", "exponent 30", "sign 31"]
    assert groups[LAYER] == ["conv1", "fc"]
    assert groups[MARGIN] == ["0–2 %", "2–5 %", "10–20 %", "50–100 %", NOT_FINITE]
    where = {
        (BITS, "exponent 30"): [0, 1, 5],
        (BITS, "sign 31"): [3],
        (LAYER, "conv1"): [0, 1, 2],
        (LAYER, "fc"): [3, 4, 5],
        (MARGIN, "0–2 %"): [0, 1],
        (MARGIN, NOT_FINITE): [5],
    }
    table = found.set_index(["by", "group", "protection"])
    assert set(found["protection"]) == {"progip", "ranger"}
    for (by, group), hits in where.items():
        for place, protection in ((4, "progip"), (5, "ranger")):
            seen = np.array([HITS[i][place] for i in hits])
            weights = np.array([HITS[i][3] for i in hits])
            expected = weighted_rate(seen, weights)
            size = min(expected.effective_n, weights.sum() ** 2 / (weights**2).sum())
            low, high = proportion_confint(expected.estimate * size, size, method="wilson")
            row = table.loc[(by, group, protection)]
            assert (row["failures"], row["left"]) == (len(hits), (~seen).sum())
            assert tuple(row[["detected", "detected_low", "detected_high"]]) == pytest.approx(
                (expected.estimate, low, high), abs=1e-12
            )


def test_the_section_ranks_layers_by_what_is_left(watched: Path) -> None:
    section = missed_section(Campaign.load(watched))
    assert section is not None
    bits, margin, layers, reading = section.blocks
    assert bits.headers == ["bits", "failures", "progip", "ranger"]
    assert [row[:2] for row in layers.rows] == [["conv1", "3"], ["fc", "3"]]
    assert layers.rows[0][2].startswith("16.7 (")  # 1 of a weight of 6
    assert margin.rows[0][0] == "0–2 %"
    assert "left out" in str(reading.notes[0])
    for block in section.blocks:
        for row in block.rows:
            for value in row[1:]:
                stored = section.data.loc[value.row]
                assert str(row[0]) == stored["group"]


def test_a_light_miss_does_not_vouch_for_heavy_failures(campaign: Path, write_cell: Write) -> None:
    for name, letters in (("none", "." * 20), ("progip", "x" * 17 + "..."), ("ranger", "x" * 20)):
        rows = runs(detection=letters)
        for row in rows[17:]:
            row["weight"] = 1e-3
        write_cell(rows, protection=name)
    found = missed(Campaign.load(campaign), SETTING)
    table = found[found["by"] == BITS].set_index("protection")
    assert table.loc["progip", "detected"] > 0.9998
    none_left = proportion_confint(17, 17, method="wilson")[0]
    assert table.loc["progip", "detected_low"] == pytest.approx(none_left, abs=1e-3)
    assert table.loc["ranger", "detected_low"] == pytest.approx(none_left, abs=1e-3)


def test_without_a_threshold_images_are_not_grouped(campaign: Path, write_cell: Write) -> None:
    for name in ("none", "progip"):
        write_cell(runs(detection="x."), protection=name, manifest={"thresholds": {}})
    found = missed(Campaign.load(campaign), SETTING)
    assert set(found["by"]) == {BITS, LAYER}


def test_nothing_is_said_where_nothing_failed(campaign: Path, write_cell: Write) -> None:
    for name in ("none", "progip"):
        write_cell(runs(harmless="x."), protection=name)
    assert missed_section(Campaign.load(campaign)) is None
