"""SDC as an outcome: truth table, a campaign against counts of its own rows, and its report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from progip.analysis.campaign import Campaign
from progip.analysis.kinds import kinds_of
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.outcomes.base import Context
from progip.outcomes.sdc import SDC
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]
#    golden, faulty, label -> correct, changed, invalid
CASES = [
    (3, 3, 3, True, False, False),
    (3, 4, 3, True, True, False),
    (3, -1, 3, True, True, True),  # the logits hold a NaN
    (2, 2, 3, False, False, False),
    (2, 3, 3, False, True, False),  # now it is right, and a corruption all the same
    (2, -1, 3, False, True, True),
]


@pytest.mark.parametrize("among", ["all", "correct", "misclassified"])
def test_truth_table(among: str) -> None:
    golden, faulty, label, correct, changed, invalid = map(np.array, zip(*CASES, strict=True))
    runs = {"golden_class": golden, "faulty_class": faulty, "label": label}
    outcome = SDC(name="sdc", among=among)
    found = outcome.judge(runs, Context("id", 0.0))
    counted = {"all": correct | True, "correct": correct, "misclassified": ~correct}[among]
    np.testing.assert_array_equal(found["counted"], counted)
    np.testing.assert_array_equal(found["sdc"], changed & counted)
    np.testing.assert_array_equal(found["invalid_class"], invalid & counted)
    np.testing.assert_array_equal(found["originally_correct"], correct)


def campaign(folder: Path, *overrides: str) -> pd.DataFrame:
    options = ["runs=600", "shard_size=150", "fault_model.bits=[20,28,30]", *overrides]
    cfg = composed([f"outputs={folder}", "population=id", *options], ROOT / "conf")
    cell = run_cell(cell_settings(cfg), resolved(cfg))
    parts = [pq.read_table(path) for path in sorted(cell.glob("part-*.parquet"))]
    return pa.concat_tables(parts).to_pandas()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A campaign that asks for every kind of SDC."""
    folder = tmp_path_factory.mktemp("sdc")
    chosen = ["outcome=sdc", "outcome.top_five=true", "outcome.confidence=[10,20]"]
    chosen.append("probes=[confidence,top_five]")
    return folder, campaign(folder, "ood_method=none", "protection=none", *chosen)


def test_rows_and_manifest_name_the_outcome(measured: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = measured
    assert (rows["outcome"] == "sdc").all()
    assert (rows["sdc"] == (rows["faulty_class"] != rows["golden_class"])).all()
    assert rows[["verdict_changed", "detection_failure"]].isna().all(axis=None)
    (manifest,) = folder.rglob("none-sdc/manifest.json")
    content = json.loads(manifest.read_text())
    producers = {column["name"]: column["producer"] for column in content["columns"]}
    assert {*producers} <= {*rows}
    assert rows[[name for name in rows if name not in producers]].isna().all(axis=None)
    assert producers["sdc"] == "outcome sdc"
    assert producers["sdc_20_percent"] == "outcome sdc"
    assert producers["golden_top_five"] == "probe top_five"
    assert producers["alarm"] == "protection none"
    assert content["outcome"]["events"][0]["name"] == "sdc"


def test_rates_are_those_of_the_rows(measured: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = measured
    found = Campaign.load(folder / "campaign")
    (cell,) = found.cells.to_dict("records")
    assert cell["sdc_failures"] == rows["sdc"].sum() > 0
    assert cell["invalid_failures"] == rows["invalid_class"].sum()
    assert cell["failures"] == rows["sdc"].sum()  # the invalid ones are not counted twice
    assert cell["counted"] == len(rows) == 600


def test_every_kind_is_that_of_its_definition(measured: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = measured
    for row in rows.itertuples():
        five = row.faulty_class not in list(row.golden_top_five)
        assert row.sdc_5 == five
        assert row.golden_top_five[0] == row.golden_class
        for share, flag in ((10, row.sdc_10_percent), (20, row.sdc_20_percent)):
            change = abs(row.faulty_confidence - row.golden_confidence) / row.golden_confidence
            assert flag == (np.isnan(change) or change > share / 100)
    counts = rows[["sdc_5", "sdc", "sdc_20_percent", "sdc_10_percent"]].sum()
    assert 0 < counts.iloc[0] < counts.iloc[1]
    assert 0 < counts.iloc[2] < counts.iloc[3]
    (cell,) = Campaign.load(folder / "campaign").cells.to_dict("records")
    assert cell["sdc_5_failures"] == counts["sdc_5"]
    assert cell["sdc_10_percent_failures"] == counts["sdc_10_percent"]


def test_runs_without_a_class_are_sdcs_of_every_kind() -> None:
    outcome = SDC(name="sdc", top_five=True, confidence=[10])
    one = np.ones(1, dtype=np.int32)
    best = np.arange(5, dtype=np.int32)[None]
    runs = {"label": one, "golden_class": one, "faulty_class": -one}
    runs |= {"golden_top_five": best, "faulty_top_five": best - 9}
    runs |= {"golden_confidence": np.array([0.9]), "faulty_confidence": np.array([np.nan])}
    found = outcome.judge(runs, Context("id", 0.0))
    assert all(found[name][0] for name in ("sdc", "sdc_5", "sdc_10_percent", "invalid_class"))


def test_the_report_speaks_of_sdc_alone(measured: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = measured
    text = write_report(folder / "campaign")
    assert "Silent data corruptions (SDC) left" in text
    assert f"{rows['sdc'].sum():,} take another class" in text
    assert "SDC-10 % (probability of the best class)" in text
    for foreign in ("ID/OOD", "lassification failure", "Beside the publication agree"):
        assert foreign not in text.split("References")[0], foreign
    assert "ProGIP" not in text.split("== Methods")[-1]


def test_two_outcomes_of_one_campaign_execute_once(tmp_path: Path) -> None:
    verdict = campaign(tmp_path, "protection=progip")
    executed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("_execution/part-*")}
    sdc = campaign(tmp_path, "protection=progip", "outcome=sdc")
    assert executed == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("_execution/part-*")}
    pd.testing.assert_series_equal(verdict["faulty_score"], sdc["faulty_score"])
    assert (sdc["sdc"] == verdict["class_changed"]).all()
    with pytest.raises(ProgipError, match=r"ood_verdict, sdc\); choose one with"):
        Campaign.load(tmp_path / "campaign")
    assert Campaign.load(tmp_path / "campaign", outcome="ood_verdict").kinds.declared.disjoint
    assert "SDC" in write_report(tmp_path / "campaign", outcome="sdc")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["outcome.top_five=true"], r"needs top_five, which the probe 'top_five' produces"),
        (["outcome.confidence=[0]"], r"confidence=\[0\]: give per cents from 1 on"),
        (["population=ood"], r"'sdc' is of id inputs; add population=id"),
        (["outcome.among=some"], r"among='some' is not one of all, correct, misclassified"),
        (["probes=[warmth]"], r"'warmth' is no probe .* There are: .*largest_logit"),
        (["stopping=confidence_sequence", "stopping.of=detection_rate"], "is not one of counted"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        campaign(tmp_path, "outcome=sdc", *overrides)
    assert not list(tmp_path.rglob("*.parquet"))


def test_declared_flags_imply_their_base() -> None:
    kinds = kinds_of(SDC(name="m").declared)
    flags = {name: np.array([True, False]) for name in kinds.flags}
    flags["counted"] = np.array([True, True])
    assert kinds.odd(flags) == ""
    flags["counted"] = np.array([False, True])
    assert kinds.odd(flags) == "a run has sdc without counted"


def test_columns_are_declared_with_their_types() -> None:
    outcome = SDC(name="m")
    runs = {"golden_class": np.array([1]), "faulty_class": np.array([2]), "label": np.array([1])}
    found = outcome.judge(runs, Context("id", 0.0))
    assert list(found) == [field.name for field in outcome.columns]
    assert all(field.type == pa.bool_() for field in outcome.columns)
