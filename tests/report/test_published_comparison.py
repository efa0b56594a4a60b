"""The publication's own counts, as a campaign on disk."""

from pathlib import Path

import pandas as pd
import pytest
from campaign_factory import Write, runs

from progip.report import Campaign, write_report
from progip.report.sections import breakdown, published_comparison, tables

#: protection: classification and ID/OOD failures left of 4138 and 5989
LEFT = {"none": (4138, 5989), "ranger": (12, 133), "progip": (17, 111)}


def letters(left: int, of: int) -> str:
    return "." * left + "x" * (of - left)


@pytest.fixture
def paper(campaign: Path, write_cell: Write) -> Path:
    for protection, (c, d) in LEFT.items():
        rows = runs(letters(c, 4138), letters(d, 5989), harmless="." * 2000, wrong="." * 500)
        names = {"dataset": "cifar10", "ood_dataset": "tiny_imagenet_resize"}
        write_cell(rows, protection=protection, model="resnet34", **names)
    return campaign


def test_the_published_counts_give_the_published_table(paper: Path, tmp_path: Path) -> None:
    text = write_report(paper, tmp_path / "out")
    body = text[text.index("Overall results") :]
    for start, ours in (
        ("Classification failures left", ["4,138", "17", "12"]),
        ("ID/OOD detection failures left", ["5,989", "111", "133"]),
        ("All failures left", ["10,127", "128", "145"]),
        ("· detected, % (overall)", ["N/A", "98.74", "98.57"]),
    ):
        line = next(line for line in body.splitlines() if line.startswith(start))
        words = line.removeprefix(start).split()
        assert words == [*ours, *ours]  # ours, then the publication's
    lines = [line.split()[3:] for line in body.splitlines() if line.startswith("· detected, % ")]
    assert lines[0] == 2 * ["N/A", "99.59", "99.71"]
    assert lines[1] == 2 * ["N/A", "98.15", "97.78"]


def test_a_plain_word_on_agreement(paper: Path) -> None:
    campaign = Campaign.load(paper)
    data = published_comparison.beside_section(campaign).data.set_index(["quantity", "protection"])
    for protection in ("progip", "ranger"):
        for kind in ("classification", "detection", "overall"):
            assert data.loc[(f"{kind}_accuracy", protection), "agreement"] == "agrees"
    # 10,127 of 12,127 correct runs fail here, far from 0.51 %
    assert data.loc[("failure_rate", "none"), "agreement"] == "higher"
    assert data.loc[("failure_rate", "none"), "ours"] == pytest.approx(10127 / 12127)
    (note, *_), _ = (block.notes for block in published_comparison.beside_section(campaign).blocks)
    assert "read the comparison as orientation" in note
    assert "12,627 runs per protection instead of 2,400,000" in note
    base = breakdown.base_metrics(campaign.base).iloc[0]
    assert base["agreement_auroc"] == "higher"  # 0.99 of 200 + 100 images against 0.9030


def test_words_by_hand() -> None:
    assert published_comparison.agreement(0.1, 0.2, 0.15, 0.3) == "agrees"
    assert published_comparison.agreement(0.1, 0.2, 0.2, 0.3) == "agrees"
    assert published_comparison.agreement(0.1, 0.2, 0.21, 0.3) == "lower"
    assert published_comparison.agreement(0.4, 0.5, 0.21, 0.3) == "higher"
    assert published_comparison.agreement(float("nan"), 0.5, 0.21, 0.3) == "no data"


def test_without_a_failure_there_is_no_word(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(harmless="...."), protection="progip")
    data = published_comparison.beside_section(Campaign.load(campaign, beside=True)).data
    row = data[(data["quantity"] == "overall_accuracy") & (data["protection"] == "progip")].iloc[0]
    assert row["agreement"] == "no data"
    assert pd.isna(row["ours"])
    assert tables.overall_section(Campaign.load(campaign)).data["source"].iloc[0] == "campaign"
