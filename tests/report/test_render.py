import os
from pathlib import Path

import pandas as pd
import pytest
from campaign_factory import Write, runs
from scipy.stats import binomtest

from progip.errors import ProgipError
from progip.report import write_report

SEEN = {"none": ".....", "progip": "xxxx.", "ranger": "xx.x."}
CSVS = (
    "layers",
    "base_metrics",
    "cells",
    "comparisons",
    "methods",
    "overall",
    "per_pass",
    "provenance",
)
PAGES = ("report.html", "report.md", "report.tex")
CSVS += ("published", "summary", "opening", "ranked_bits", "map", "detectors", "missed")


@pytest.fixture
def full(campaign: Path, write_cell: Write) -> Path:
    """Two methods, three passes, two populations, three protections; 4 of 5 failures detected."""
    for method in ("odin", "mahalanobis"):
        for fault_pass in ("first_forward", "backward", "second_forward"):
            for population in ("id", "ood"):
                for protection, seen in (
                    ("none", "....."),
                    ("progip", "xxxx."),
                    ("ranger", "xx.x."),
                ):
                    write_cell(
                        runs(detection=seen, harmless="." * 95, nonfinite_gradient=True),
                        ood_method=method,
                        fault_pass=fault_pass,
                        population=population,
                        protection=protection,
                    )
    return campaign


def line_of(text: str, start: str, after: str = "") -> str:
    rest = text[text.index(after) :]
    return next(line for line in rest.splitlines() if line.startswith(start))


def test_the_report_as_text(full: Path) -> None:
    text = write_report(full, beside=True)
    *lines, where, files, _ = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert where == f"Written to {full / 'report'}:"
    assert set(files.split(", ")) == {*PAGES, *(f"{name}.csv" for name in CSVS)}
    assert "36 of 36 cells finished, 3,600 of 3,600 runs done." in text
    assert line_of(text, "All failures left").split()[3:] == [
        *("60", "12", "24"),
        *("10,127", "128", "145"),
    ]
    overall = line_of(text, "· detected, % (overall)").split()[4:]
    assert overall == ["N/A", "80.00", "60.00", "N/A", "98.74", "98.57"]
    assert "published (DenseNet-BC and ResNet-34, CIFAR-10 / ImageNet-resize)" in text
    assert "progip leaves 12 undetected and ranger 24" in text
    assert "is significant (exact McNemar" in " ".join(text.split())


def test_nan_dominant_passes_are_marked(full: Path) -> None:
    text = write_report(full)
    assert line_of(text, "backward N", "all models and OOD methods")
    assert "first_forward 0 of 20, backward 20 of 20 (N), second_forward 0 of 20." in text
    assert "first_forward N" not in text


def test_files(full: Path) -> None:
    write_report(full)
    # the others need clean evidence
    drawn = ("overview", "passes", "vulnerability", "bits", "detection", "precision")
    assert {path.name for path in (full / "report").iterdir()} == {
        *PAGES,
        *(f"{name}.csv" for name in CSVS),
        *(f"{name}.{kind}" for name in drawn for kind in ("svg", "pdf", "png", "csv")),
    }
    overall = pd.read_csv(full / "report" / "overall.csv")
    assert list(overall["source"]) == 3 * ["campaign"]  # networks that nothing published is of
    write_report(full, beside=True)
    overall = pd.read_csv(full / "report" / "overall.csv")
    assert list(overall["source"]) == 3 * ["campaign"] + 3 * ["published"]
    overall = overall[overall["source"] == "campaign"].set_index("protection")
    assert overall.loc["progip", "overall_accuracy"] == 0.8
    assert overall.loc["progip", "overall_accuracy_n"] == 60
    assert "done_w" not in overall
    assert str(full).encode() not in b"".join(p.read_bytes() for p in (full / "report").iterdir())
    per_pass = pd.read_csv(full / "report" / "per_pass.csv")
    assert len(per_pass) == 3 * 4 * 3  # (all, mahalanobis, odin) x (3 passes, all) x protections


def test_reporting_again_changes_nothing(full: Path, tmp_path: Path) -> None:
    first = write_report(full)
    again = write_report(full)
    assert first == again
    elsewhere = write_report(full, tmp_path / "elsewhere" / "deep")
    assert elsewhere.splitlines()[:-3] == first.splitlines()[:-3]
    assert (tmp_path / "elsewhere" / "deep" / "report.md").exists()


def test_markdown_tables_are_whole(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x.", harmless="."), model="net|work_a", protection="pro_gip|2")
    write_report(campaign)
    page = (campaign / "report" / "report.md").read_text()
    assert r"net\|work\_a" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert tables
    for table in tables:
        bars = {line.replace(r"\|", "").count("|") for line in table}
        assert len(bars) == 1


def test_unfinished_and_missing_cells_are_shown(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x.", harmless="."), protection="progip", planned=10)
    write_cell(runs(detection="..", harmless="."), fault_pass="backward")
    write_cell([], protection="progip", fault_pass="second_forward", planned=10)
    text = write_report(campaign)
    assert line_of(text, "digits_resnet/").split()[-4:] == ["3", "/", "10", "unfinished"]
    assert "0 / 10  not started" in text
    assert "backward progip" in text
    assert "1 of 3 cells finished, 6 of 23 runs done." in text
    block = text[text.index("all models and OOD methods") :]
    assert "progip*" in block
    backward = block[block.index("backward") :].splitlines()[:2]
    assert backward[0].split()[:4] == ["backward", "none", "3", "0"]
    assert backward[1].split()[:2] == ["progip", "missing"]
    second = block[block.index("second_forward") :].splitlines()[1]
    assert second.split()[:4] == ["progip*", "–", "–", "–"]


def test_broken_shard_is_a_warning(full: Path) -> None:
    shard = next(full.rglob("part-*.parquet"))
    shard.write_bytes(b"PAR1")
    text = write_report(full)
    assert "Warning: shard left out" in text
    assert shard.name in text
    assert "35 of 36 cells finished" in text
    assert "**Warning**" in (full / "report" / "report.md").read_text()


def test_settings_stand_apart(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="..", harmless="."))
    write_cell(runs(detection=".", harmless=".."), fault_model="stuck_at")
    text = write_report(campaign)
    assert "digits against digits_unseen, faults single_bit_flip" in text
    after = text[text.index("Overall results") :]
    after = after[after.index("digits against digits_unseen, faults stuck_at") :]
    assert line_of(after, "All failures left").split()[3:] == ["1"]  # nothing published of it
    assert "No two protections watched the same faults." in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(full: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(ProgipError, match="cannot write the report"):
        write_report(full, locked)


def test_output_that_is_a_file(full: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ProgipError, match=r"cannot write the report to .*taken"):
        write_report(full, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_exact_intervals_on_request(full: Path) -> None:
    text = write_report(full, interval="clopper_pearson", beside=True)
    together = " ".join(text.split())
    assert "Intervals are Clopper and Pearson's (exact), 95 %" in together
    assert "the others Clopper and Pearson's (exact)" in together
    exact = binomtest(48, 60).proportion_ci(method="exact")
    line = line_of(text, "· 95 % interval", after="· detected, % (overall)").split()
    assert f"{100 * exact.low:.2f}–{100 * exact.high:.2f}" in line
    frame = pd.read_csv(full / "report" / "overall.csv").drop_duplicates("protection")
    frame = frame.set_index("protection")
    assert frame.loc["progip", "overall_accuracy_low"] == pytest.approx(exact.low)
    assert frame.loc["progip", "overall_accuracy_high"] == pytest.approx(exact.high)
    limits = f"{100 * exact.low:.2f}–{100 * exact.high:.2f}"
    assert f"(95 % interval {limits}) of 60 failures" in together  # the findings
    beside = pd.read_csv(full / "report" / "published.csv").set_index(["protection", "quantity"])
    assert beside.loc[("progip", "overall_accuracy"), "ours_low"] == pytest.approx(exact.low)
    passes = pd.read_csv(full / "report" / "per_pass.csv")
    row = passes[(passes["protection"] == "progip") & (passes["fault_pass"] == "backward")].iloc[0]
    part = binomtest(16, 20).proportion_ci(method="exact")
    assert row["overall_accuracy_low"] == pytest.approx(part.low)
