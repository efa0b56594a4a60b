"""Conditions: faults are drawn for the chosen images alone, evenly, in every plan."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from progip.analysis.campaign import Campaign
from progip.analysis.error_rates import rate_table
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ["a", "a", "b", "b", "c", "d", "d", "e"]  # a, b: supergroup A


def campaign(folder: Path, *overrides: str) -> pd.DataFrame:
    chosen = ["ood_method=none", "ood_dataset=none", "protection=none", "outcome=sdc"]
    # a network of random weights, so that many images are misclassified
    model = ["model.weights=random", "runs=2000"]
    model += [] if "fault_model=one_bit" in overrides else ["fault_model.bits=[30]"]
    cfg = composed([f"outputs={folder}", *chosen, *model, *overrides], ROOT / "conf")
    cell = run_cell(cell_settings(cfg), resolved(cfg))
    parts = [pq.read_table(path) for path in sorted(cell.glob("part-*.parquet"))]
    return pa.concat_tables(parts).to_pandas()


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "groups.csv"
    rows = [f"{i},{g},{'A' if g in 'ab' else 'B'}" for i, g in enumerate(GROUPS)]
    path.write_text("\n".join(["class_index,group,supergroup", *rows]))
    return path


def expected(condition: str, rows: pd.DataFrame) -> pd.Series:
    right = rows["golden_class"] == rows["label"]
    before, after = (rows[name].map(dict(enumerate(GROUPS))) for name in ("label", "golden_class"))
    critical = before.isin(["a", "b"]) & (before != after)
    return {
        "correct": right,
        "misclassified": ~right,
        "scm": ~right & critical,
        "non_scm": ~right & ~critical,
    }[condition]


@pytest.mark.parametrize("condition", ["correct", "misclassified", "scm", "non_scm"])
def test_the_chosen_images_alone_are_drawn(condition: str, groups: Path, tmp_path: Path) -> None:
    more = [f"condition.groups={groups}"] if "scm" in condition else []
    rows = campaign(tmp_path, f"condition={condition}", *more)
    assert expected(condition, rows).all()
    assert (rows["condition"] == condition).all()
    (clean,) = tmp_path.rglob("clean.parquet")
    golden = pd.read_parquet(clean).query("split == 'evaluation'")
    golden = golden.rename(columns={"class": "golden_class"})
    chosen = golden.loc[expected(condition, golden), "sample_index"]
    drawn = rows["sample_index"].value_counts().reindex(chosen, fill_value=0)
    assert drawn.sum() == len(rows)
    assert len(drawn) < len(golden)
    assert stats.chisquare(drawn).pvalue > 1e-4


@pytest.mark.parametrize("plan", ["uniform", "stratified", "importance"])
def test_every_plan_draws_the_chosen_images(plan: str, tmp_path: Path) -> None:
    more = {
        "stratified": ["sampling.pilot=200", "fault_model.bits=[20,30]"],
        "importance": ["sampling.bit_odds={30:5}", f"fault_model.bits={list(range(32))}"],
    }.get(plan, [])
    rows = campaign(tmp_path, "condition=misclassified", f"sampling={plan}", "runs=400", *more)
    assert (rows["golden_class"] != rows["label"]).all()
    assert Campaign.load(tmp_path / "campaign").cells["done"].tolist() == [400]


def test_conditions_stand_apart_in_a_report(tmp_path: Path) -> None:
    right = campaign(tmp_path, "condition=correct", "runs=300")
    wrong = campaign(tmp_path, "condition=misclassified", "runs=300")
    cells = Campaign.load(tmp_path / "campaign").cells.set_index("condition")
    assert cells.loc["correct", "sdc_failures"] == right["sdc"].sum()
    assert cells.loc["misclassified", "sdc_failures"] == wrong["sdc"].sum()
    text = write_report(tmp_path / "campaign")
    assert "images correct" in text
    assert "images misclassified" in text
    assert not np.array_equal(right["neuron"], wrong["neuron"])  # each has faults of its own


def test_an_empty_condition_is_refused(tmp_path: Path) -> None:
    options = ["condition=misclassified", "dataset.limit=110", "dataset.calibration=100"]
    with pytest.raises(ProgipError, match=r"'misclassified': none of the 10 evaluation images"):
        campaign(tmp_path, "model.weights=package:digits_resnet.safetensors", *options)


def test_ood_images_have_no_class_to_go_by(tmp_path: Path) -> None:
    chosen = ["ood_method=odin", "ood_dataset=digits_unseen", "outcome=ood_verdict"]
    with pytest.raises(ProgipError, match=r"condition 'correct' is of id inputs; add populat"):
        campaign(tmp_path, "condition=correct", "population=ood", *chosen)


def test_faults_at_a_rate_go_round_the_chosen_images(tmp_path: Path) -> None:
    fault = ["fault_model=one_bit", "fault_model.rate=1e-4", "fault_model.bits=[30]"]
    golden = _golden(tmp_path, *fault)
    count = int((golden["class"] != golden["label"]).sum())
    rows = campaign(tmp_path, "condition=misclassified", f"runs={2 * count + 3}", *fault)
    assert rows["sample_index"].nunique() == count
    assert (rows["sample_index"].value_counts() >= 2).all()
    table = rate_table(Campaign.load(tmp_path / "campaign").folders).set_index("condition")
    assert (table.loc["misclassified", "images"], table.loc["misclassified", "maps"]) == (count, 2)
    assert np.isnan(table.loc["misclassified", "clean_accuracy"])
    assert table.loc["all", "images"] > count
    assert "images misclassified" in write_report(tmp_path / "campaign")


def _golden(folder: Path, *fault: str) -> pd.DataFrame:
    campaign(folder, "runs=5", *fault)
    (clean,) = folder.rglob("clean.parquet")
    return pd.read_parquet(clean).query("split == 'evaluation'")
