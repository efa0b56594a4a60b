"""DeltaLoss and Top2Diff: rows against PyTorch under a plain hook, means against NumPy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from progip.analysis.campaign import Campaign
from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.campaign.subject import prepare
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.outcomes.base import Context
from progip.outcomes.loss import DeltaLoss
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]


def campaign(folder: Path, *overrides: str) -> tuple[CellSettings, pd.DataFrame]:
    chosen = ["ood_method=none", "protection=none", "runs=600", "fault_model.bits=[20,28,30]"]
    cfg = composed([f"outputs={folder}", *chosen, *overrides], ROOT / "conf")
    settings = cell_settings(cfg)
    cell = run_cell(settings, resolved(cfg))
    parts = [pq.read_table(path) for path in sorted(cell.glob("part-*.parquet"))]
    return settings, pa.concat_tables(parts).to_pandas()


Measured = tuple[Path, CellSettings, pd.DataFrame]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("loss")
    settings, rows = campaign(
        folder, "outcome=loss", "outcome.among=correct", "probes=[confidence,loss]"
    )
    return folder, settings, rows


def test_rows_are_those_of_a_plain_hook(measured: Measured) -> None:
    _, settings, rows = measured
    tested = prepare(settings.subject).tested
    network, images = tested.plain, tested.images["id"]
    compared = 0
    for row in rows.iloc[::13].itertuples():

        def flip(module, args, output, row=row):
            faulty = output.clone()
            words = faulty[0].contiguous().flatten().view(torch.int32)
            words[row.neuron] ^= 1 << row.bit
            faulty[0] = words.view(torch.float32).view_as(output[0])
            return faulty

        handle = network.get_submodule(row.layer).register_forward_hook(flip)
        with torch.no_grad():
            logits = network(images[row.sample_index : row.sample_index + 1]).double()
        handle.remove()
        loss = float(F.cross_entropy(logits, torch.tensor([row.label])))
        best = torch.softmax(logits, 1)[0].sort(descending=True).values
        if np.isfinite(loss):
            assert row.faulty_loss == pytest.approx(loss, rel=1e-3, abs=1e-5)
            lead = 100 * float(best[0] - best[1])
            assert row.faulty_top2diff == pytest.approx(lead, rel=1e-3, abs=1e-3)
            compared += 1
        else:
            assert not np.isfinite(row.faulty_loss)
    assert compared > 20


def test_means_are_those_of_the_rows(measured: Measured) -> None:
    folder, _, rows = measured
    counted = rows[rows["golden_class"] == rows["label"]]
    change = (counted["faulty_loss"] - counted["golden_loss"]).abs()
    finite = change[np.isfinite(change)]
    assert len(finite) < len(change)  # some are not
    (cell,) = Campaign.load(folder / "campaign").cells.to_dict("records")
    found = cell["means"]["delta_loss"].mean()
    assert (found.n, found.nonfinite.events) == (len(finite), len(change) - len(finite))
    assert found.estimate == pytest.approx(finite.mean())
    low, high = stats.t.interval(0.95, len(finite) - 1, finite.mean(), stats.sem(finite))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.01)
    capped = cell["means"]["delta_loss_capped"].mean()
    expected = np.where(np.isfinite(change), np.minimum(change, 10.0), 10.0).mean()
    assert capped.estimate == pytest.approx(expected)
    assert capped.nonfinite.events == 0
    assert cell["mismatch_failures"] == counted["class_changed"].sum()
    assert cell["nonfinite_loss_failures"] == len(change) - len(finite)
    golden = cell["means"]["top2diff_golden"].mean()
    assert golden.estimate == pytest.approx(counted["golden_top2diff"].mean())


def test_the_report_names_the_measures(measured: Measured) -> None:
    folder, *_ = measured
    text = write_report(folder / "campaign")
    for words in ("DeltaLoss, finite alone", "DeltaLoss, capped at 10", "Top2Diff with a fault"):
        assert words in text


def test_the_report_of_a_cell_that_has_no_rows_yet(tmp_path: Path) -> None:
    campaign(tmp_path, "outcome=loss", "probes=[confidence,loss]", "runs=20")
    for part in tmp_path.rglob("part-*.parquet"):
        part.unlink()
    assert "0 of 20 runs done" in write_report(tmp_path / "campaign")


def test_a_loss_that_is_not_finite_counts_as_the_cap() -> None:
    one = np.ones(3, dtype=np.int32)
    runs = {"label": one, "golden_class": one, "faulty_class": np.array([1, -1, 2], np.int32)}
    runs |= {"golden_loss": np.full(3, 0.5), "faulty_loss": np.array([0.25, np.nan, np.inf])}
    found = DeltaLoss(name="loss", cap=4.0).judge(runs, Context("id", 0.0))
    assert found["delta_loss_capped"].tolist() == [0.25, 4.0, 4.0]
    assert found["nonfinite_loss"].tolist() == [False, True, True]
    assert found["mismatch"].tolist() == [False, True, True]


def test_three_outcomes_of_one_campaign_execute_once(tmp_path: Path) -> None:
    on = "probes=[confidence,loss,top_five]"
    campaign(tmp_path, "outcome=loss", on)
    executed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("_execution/part-*")}
    groups = tmp_path / "groups.csv"
    rows = [f"{i},g{i % 3},{'AAB'[i % 3]}" for i in range(8)]
    groups.write_text("\n".join(["class_index,group,supergroup", *rows]))
    campaign(tmp_path, "outcome=scm", f"outcome.groups={groups}", on)
    campaign(tmp_path, "outcome=sdc", "outcome.top_five=true", "outcome.confidence=[10]", on)
    assert executed
    assert executed == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("_execution/part-*")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"'loss' needs loss, top2diff"),
        (["outcome.cap=0", "probes=[confidence,loss]"], r"cap=0.0: give nats above 0"),
        (["probes=[top_five]", "dataset=npz", "dataset.classes=3"], r"'top_five' of 3 classes"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    name = "loss" if "probes=[top_five]" not in overrides else "sdc"
    with pytest.raises(ProgipError, match=message):
        campaign(tmp_path, f"outcome={name}", *overrides)
    assert not list(tmp_path.rglob("*.parquet"))
