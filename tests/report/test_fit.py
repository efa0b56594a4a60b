"""Failures in time against arithmetic by hand."""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from campaign_factory import Row, Write, runs

from progip.analysis.fit import fit_table
from progip.analysis.raw_rates import read_raw_rates
from progip.errors import ProgipError
from progip.report import Campaign, write_report
from progip.report.sections.fit import fit_section
from progip.statistics.limits import (
    lower_limit,
    upper_limit,
    weighted_coverage_limit,
    weighted_upper_limit,
)

RATES = """
rates:
  - technology: SRAM
    source: a test
    fit_per_bit: 1e-3
    targets: [output]
    residency: 0.5
    residency_of: {fc: 1}
"""
SINGLE = {"name": "single_bit_flip", "weighting": "layer", "bits": None, "fields": None}
#: 1,000 and 10 values of 32 bits
LAYERS = [
    {"layer": "conv1", "call": 0, "type": "Conv2d", "neurons": 1000, "macs": 1},
    {"layer": "fc", "call": 0, "type": "Linear", "neurons": 10, "macs": 1},
]


def manifest(**fault: Any) -> dict[str, Any]:
    about = {"model": {"name": "digits_resnet"}, "fault_model": {**SINGLE, **fault}}
    return {"identity": about, "layers": LAYERS}


def rows(seen: str) -> list[Row]:
    """4 failures of 100 that can fail in conv1, 3 of 50 in fc, 10 that were wrong anyway."""
    found = runs(detection=seen, harmless="." * 143, wrong="." * 10)
    for number, row in enumerate(found):
        row["call"] = 0
        row["layer"] = "conv1" if number < 4 or 7 <= number < 103 else "fc"
    return found


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    path = tmp_path / "rates.yaml"
    path.write_text(RATES)
    return path


@pytest.fixture
def counted(campaign: Path, write_cell: Write) -> Path:
    write_cell(rows("......."), manifest=manifest())
    write_cell(rows("xxx.xx."), manifest=manifest(), protection="progip")
    return campaign


def table(campaign: Path, rates: Path) -> pd.DataFrame:
    found = fit_table(Campaign.load(campaign), read_raw_rates(rates))
    return found.set_index(["protection", "layer"])


def test_an_example_worked_by_hand(counted: Path, rates: Path) -> None:
    data = table(counted, rates)
    # conv1: 32,000 bits there half the time; fc: 320 always; .001 FIT a bit
    conv, fc = data.loc[("none", "conv1")], data.loc[("none", "fc")]
    assert (conv["bits"], conv["exposure"], conv["raw"]) == (32000, 16000, 16)
    assert (fc["bits"], fc["exposure"], fc["raw"]) == (320, 320, 0.32)
    assert (conv["n"], conv["failures"], fc["n"], fc["failures"]) == (100, 4, 50, 3)
    assert conv["failing"] == pytest.approx(16 * 0.04)
    assert conv["failing_high"] == pytest.approx(16 * upper_limit(4, 100))
    whole = data.loc[("none", "(all)")]
    assert whole["raw"] == pytest.approx(16.32)
    assert whole["failing"] == pytest.approx(16 * 0.04 + 0.32 * 0.06)
    assert whole["safe"] == pytest.approx(16.32 - 0.6592)  # masked faults
    units = (16 / 100, 0.32 / 50)
    squares = 4 * units[0] ** 2 + 3 * units[1] ** 2
    limit = weighted_upper_limit(0.6592, squares, units[0])
    assert whole["failing_high"] == pytest.approx(limit)
    assert math.isnan(whole["coverage"])


def test_coverage_is_of_failures_not_of_masked_faults(counted: Path, rates: Path) -> None:
    data = table(counted, rates)
    conv, fc, whole = (data.loc[("progip", name)] for name in ("conv1", "fc", "(all)"))
    assert (conv["left"], fc["left"], whole["left"]) == (1, 1, 2)
    assert conv["residual"] == pytest.approx(16 * 0.01)
    assert conv["residual_high"] == pytest.approx(16 * upper_limit(1, 100))
    assert conv["coverage"] == pytest.approx(3 / 4)
    assert conv["coverage_low"] == pytest.approx(lower_limit(3, 4))
    residual = 16 * 0.01 + 0.32 * 0.02
    assert whole["residual"] == pytest.approx(residual)
    assert whole["coverage"] == pytest.approx(1 - residual / 0.6592)
    u, v = 16 / 100, 0.32 / 50
    sums = [3 * u + 2 * v, 3 * u**2 + 2 * v**2, 4 * u + 3 * v, 4 * u**2 + 3 * v**2]
    assert whole["coverage_low"] == pytest.approx(weighted_coverage_limit(5, 7, *sums))
    assert whole["metric"] == pytest.approx(1 - residual / 16.32)


def test_chosen_bits_alone_are_exposed(campaign: Path, write_cell: Write, rates: Path) -> None:
    write_cell(rows("......."), manifest=manifest(bits=[30, 31]))
    assert table(campaign, rates).loc[("none", "conv1"), "bits"] == 2000
    write_cell(rows("......."), manifest=manifest(fields=["exponent"]), fault_pass="second_forward")
    data = fit_table(Campaign.load(campaign, allow_mixed=True), read_raw_rates(rates))
    later = data[(data["fault_pass"] == "second_forward") & (data["layer"] == "conv1")]
    assert later["bits"].tolist() == [8000]


def test_a_layer_that_no_fault_hit_counts_in_full(
    campaign: Path, write_cell: Write, rates: Path
) -> None:
    all_there = [{**row, "call": 0} for row in runs(harmless="." * 50)]  # in conv1
    write_cell(all_there, manifest=manifest())
    data = table(campaign, rates)
    assert math.isnan(data.loc[("none", "fc"), "failing"])
    assert data.loc[("none", "fc"), "failing_high"] == pytest.approx(0.32)
    whole = data.loc[("none", "(all)")]
    assert whole["failing"] == 0
    limit = 16 * upper_limit(0, 50)
    assert whole["failing_high"] == pytest.approx(limit + 0.32)


def test_a_fault_in_memory_is_one_fault(campaign: Path, write_cell: Write, tmp_path: Path) -> None:
    """Maps of 4 images: one fails twice, seen once; one fails and is seen; two do not; half one."""
    marks = ["x...", "x", "", "", ""]
    found: list[Row] = []
    for number, noticed in enumerate(marks):
        size = 2 if number == 4 else 4
        failing = (2, 1, 0, 0, 0)[number]
        for image in range(size):
            row = runs(detection="x" if image < noticed.count("x") else ".")[0]
            if image >= failing:
                row = runs(harmless=".")[0]
            found.append({**row, "run_id": 4 * number + image, "layer": "conv1", "call": 0})
    about = {**LAYERS[0], "parameter": "weight", "shape": [10, 100]}
    extra = {**manifest(name="parameter_bit"), "layers": [about], "runs_per_map": 4}
    write_cell(found, manifest=extra, fault_pass="all", protection="progip")
    path = tmp_path / "rates.yaml"
    path.write_text(RATES.replace("output", "weight").replace("    residency_of: {fc: 1}\n", ""))
    data = table(campaign, path)
    whole = data.loc[("progip", "(all)")]
    assert (whole["n"], whole["failures"], whole["left"]) == (4, 2, 1)
    assert data.loc[("none", "(all)"), "failing"] == pytest.approx(16 * 2 / 4)
    assert whole["coverage"] == pytest.approx(1 / 2)


def test_a_correcting_protection_is_compared_with_the_network_without_it(
    counted: Path, write_cell: Write, rates: Path
) -> None:
    extra = manifest()
    extra["identity"]["correction"] = {"name": "clip"}
    fewer = runs(detection="..x", harmless="." * 147)
    for number, row in enumerate(fewer):
        row["call"] = 0
        row["layer"] = "conv1" if number < 2 or 3 <= number < 101 else "fc"
    write_cell(fewer, manifest=extra, protection="clip")
    data = fit_table(Campaign.load(counted, allow_mixed=True), read_raw_rates(rates))
    row = data.set_index(["protection", "layer"]).loc[("clip", "conv1")]
    assert row["failing"] == pytest.approx(16 * 0.04)
    assert row["residual"] == pytest.approx(16 * 0.02)
    assert row["coverage"] == pytest.approx(0.5)
    assert row["coverage_low"] < 0.5


def test_in_the_report(counted: Path, rates: Path) -> None:
    text = write_report(counted, fit=str(rates))
    assert "Failures in time (FIT) and diagnostic coverage" in text
    assert "a test" in text  # where the rates come from
    stored = pd.read_csv(counted / "report" / "fit.csv")
    section = fit_section(Campaign.load(counted), str(rates))
    assert len(stored) == len(section.data) == 6
    for block in section.blocks[:-2]:
        for row in block.rows:
            for cell in row:
                for column in getattr(cell, "columns", ()):
                    assert not pd.isna(stored.loc[cell.row, column])
    assert "FIT" not in write_report(counted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("fit_per_bit: 1e-3", ""), "lacks fit_per_bit"),
        (("1e-3", "-1e-3"), "fit_per_bit is '-1e-3'; give a finite number of 0 or more"),
        (("1e-3", "much"), "fit_per_bit is 'much'"),
        (("1e-3", ".nan"), "fit_per_bit is nan"),
        (("source: a test", ""), "lacks source"),
        (("residency: 0.5", ""), "lacks residency"),
        (("residency: 0.5", "residency: 1.5"), "residency is 1.5; give a share"),
        (("[output]", "[register]"), r"targets is \['register'\]; give a list of output"),
        (("    targets", "    passes: [backward_1]\n    targets"), r"passes is \['backward_1'\]"),
        (("    targets", "    passes: [forward_2]\n    targets"), "hit in first_forward"),
        (("[output]", "[weight]"), "no raw rate for target 'output' hit in first_forward"),
        (("fc: 1", "fcc: 1"), "residency_of names the layer 'fcc'"),
        (("technology", "technologie"), "lacks technology"),
        (("    targets", "    fit: 1\n    targets"), "unknown key fit"),
        (("rates:", "rate:"), "give a list 'rates'"),
        (("rates:", "rates: ["), "raw rates cannot be read"),
    ],
)
def test_wrong_rates_are_named(
    counted: Path, rates: Path, change: tuple[str, str], words: str
) -> None:
    rates.write_text(RATES.replace(*change))
    with pytest.raises(ProgipError, match=words) as error:
        write_report(counted, fit=str(rates))
    assert str(rates) in str(error.value)


def test_rows_that_cannot_be_read_are_named(campaign: Path, write_cell: Write, rates: Path) -> None:
    write_cell(runs(detection=".", harmless="." * 9), manifest=manifest())  # which call is not said
    notes = fit_section(Campaign.load(campaign), str(rates)).blocks[-1].notes
    assert any("Left out" in note and "column call has empty values" in note for note in notes)


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "fit.md").read_text()
    (content,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "rates.yaml").write_text(content)
    found = read_raw_rates(tmp_path / "rates.yaml")
    assert found.of("grad_input", "backward").residency_of == {"linear": 1.0}
    assert found.of("weight", "all").technology == "weight memory, DRAM"
    with pytest.raises(ProgipError, match="no raw rate for target 'weight' hit in backward"):
        found.of("weight", "backward")


def test_faults_that_are_no_single_bits_are_refused(
    campaign: Path, write_cell: Write, rates: Path
) -> None:
    section = {"name": "burst", "rate": 1e-5}
    write_cell(rows("......."), manifest={"identity": {"fault_model": section}, "layers": LAYERS})
    with pytest.raises(ProgipError, match="does not hit single bits"):
        fit_table(Campaign.load(campaign), read_raw_rates(rates))
    with pytest.raises(ProgipError, match="cannot be read"):
        read_raw_rates(rates.parent / "none.yaml")
