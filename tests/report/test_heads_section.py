"""The comparison of heads against the rows themselves, in a tiny campaign of two heads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from progip.analysis.head_pairs import SAFE, head_pairs, last_layer, overall
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.report import Campaign, write_report
from progip.report.sections.heads import heads_section

CONF = Path(__file__).parents[2] / "conf"
HEADS = ("linear", "text_guided")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("heads")
    for head in HEADS:
        given = [
            f"outputs={outputs}", "name=pair", "ood_method=none", "ood_dataset=none",
            "protection=none", "outcome=loss", "sampling=per_layer", "sampling.runs_per_layer=100",
            "probes=[confidence,loss]", "batch_size=32", f"model.head={head}", "self_check=0",
            "model.weights=random", "model.name=digits_${model.head.name}",
        ]  # fmt: skip
        cfg = composed(given, CONF)
        run_cell(cell_settings(cfg), resolved(cfg))
    return outputs / "pair"


def rows_of(folder: Path, head: str) -> pd.DataFrame:
    (path,) = folder.glob(f"digits_{head}-*/*/*/none-loss/part-*.parquet")
    return pq.read_table(path).to_pandas()


def test_figures_are_those_of_the_rows(folder: Path) -> None:
    campaign = Campaign.load(folder)
    (pair,) = head_pairs(campaign)
    assert pair.own == (["linear"], ["linear.project", "linear.classify"])
    rows = {head: rows_of(folder, head) for head in HEADS}
    for measure in ("delta_loss", "delta_loss_capped"):
        means = {}
        for head, frame in rows.items():
            kept = frame[frame["counted"] & np.isfinite(frame[measure])]
            means[head] = kept.groupby("layer")[measure].mean()
        a, b = means["text_guided"][["linear.project", "linear.classify"]]
        plain = means["linear"]["linear"]
        neurons = last_layer(pair, measure, "neurons")
        assert neurons.other == pytest.approx((512 * a + 8 * b) / 520)
        assert neurons.estimate == pytest.approx(plain / neurons.other)
        assert neurons.low < neurons.estimate < neurons.high
        macs = last_layer(pair, measure, "macs")
        assert macs.other == pytest.approx((64 * 512 * a + 512 * 8 * b) / (64 * 512 + 512 * 8))
        every = overall(pair, measure)
        assert every.plain == pytest.approx(means["linear"].mean())
        assert every.other == pytest.approx(means["text_guided"].mean())
    section = heads_section(campaign)
    assert section is not None
    (row,) = section.data[section.data["kind"] == "pair"].to_dict("records")
    for head, name in (("linear", "plain"), ("text_guided", "other")):
        (path,) = folder.glob(f"digits_{head}-*/*/*/_execution/clean.parquet")
        clean = pq.read_table(path).to_pandas()
        clean = clean[clean["split"] == "evaluation"]
        right = clean["class"] == clean["label"]
        assert row[f"accuracy_{name}"] == pytest.approx(right.mean())
        assert row[f"top2diff_{name}"] == pytest.approx(clean.loc[right, "top2diff"].mean())
    layers = section.data[section.data["kind"] == "layer"].set_index(["head", "layer"])
    for head, frame in rows.items():
        here = frame[frame["counted"]].groupby("layer")["value_before"]
        for layer, values in here:
            found = layers.loc[(head, layer)]
            assert found["largest_value"] == pytest.approx(values.abs().max())
            assert found["mean_value"] == pytest.approx(values.abs().mean())


def test_bits_of_values_below_two(folder: Path) -> None:
    (pair,) = head_pairs(Campaign.load(folder))
    for head in (pair.plain, pair.other):
        assert head.bits.loc["others", "size"] > 100
        assert head.bits.loc["others", "sum"] == 0
        assert head.bits.loc["30", "sum"] > 0


def test_no_bit_but_30_takes_a_value_below_two_out_of_it() -> None:
    """Every exponent and sign, the mantissas' ends and random ones, every bit."""
    exponents = np.repeat(np.arange(128, dtype=np.uint32), 40)  # 127 and less: below 2
    mantissas = np.random.default_rng(0).integers(0, 1 << 23, len(exponents), dtype=np.uint32)
    mantissas[::40], mantissas[1::40] = 0, (1 << 23) - 1
    signs = (np.arange(len(exponents), dtype=np.uint32) % 2) << 31
    words = (exponents << 23) | mantissas | signs
    assert (np.abs(words.view(np.float32)) < SAFE).all()
    for bit in range(32):
        flipped = np.abs((words ^ np.uint32(1 << bit)).view(np.float32))
        if bit == 30:
            assert not (flipped < SAFE).any()
        else:
            assert (flipped < SAFE).all()


def test_the_report_prints_it(folder: Path) -> None:
    text = write_report(folder)
    assert "Heads compared" in text
    assert "digits_text_guided against digits_linear" in text
    assert (folder / "report" / "heads.csv").exists()


def test_campaigns_without_pairs_have_no_such_section(folder: Path) -> None:
    (alone,) = folder.glob("digits_linear-*")
    assert heads_section(Campaign.load(alone)) is None


def test_cells_of_another_outcome_are_left_out(tmp_path: Path) -> None:
    for head in HEADS:
        given = [
            f"outputs={tmp_path}", "name=pair", "ood_method=none", "ood_dataset=none",
            "protection=none", "outcome=sdc", "runs=16", "batch_size=16", f"model.head={head}",
            "self_check=0", "model.weights=random", "model.name=digits_${model.head.name}",
        ]  # fmt: skip
        cfg = composed(given, CONF)
        run_cell(cell_settings(cfg), resolved(cfg))
    campaign = Campaign.load(tmp_path / "pair")
    assert len(campaign.folders) == len(HEADS)
    assert head_pairs(campaign) == []
    assert heads_section(campaign) is None
