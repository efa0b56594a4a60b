"""SDC, SCM, layers and the delta sweep in the report: recomputed from raw rows."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from progip.analysis.campaign import Campaign
from progip.analysis.scm_shares import NAMES, network_labels, scm_shares
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.report.figures import Figure, scm, sweep
from progip.report.published import tensorfi_plus as published
from progip.report.sections.layers import layers_section
from progip.report.sections.misclassification import differences, scm_section, sdc_section
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ["a", "a", "b", "b", "c", "d", "d", "e"]  # a, b: supergroup A
CRITICAL = {i for i, group in enumerate(GROUPS) if group in "ab"}


def campaign(folder: Path, *overrides: str) -> Path:
    chosen = ["ood_method=none", "ood_dataset=none", "protection=none", f"outputs={folder}"]
    cfg = composed([*chosen, "fault_model.bits=[3,27,30,31]", *overrides], ROOT / "conf")
    return run_cell(cell_settings(cfg), resolved(cfg))


@pytest.fixture(scope="module")
def scms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two conditions of a network with random weights."""
    folder = tmp_path_factory.mktemp("scm")
    rows = [f"{i},{g},{'A' if g in 'ab' else 'B'}" for i, g in enumerate(GROUPS)]
    groups = folder / "groups.csv"
    groups.write_text("\n".join(["class_index,group,supergroup", *rows]))
    for condition in ("correct", "misclassified"):
        more = [f"groups={groups}", "model.weights=random", "runs=1500"]
        campaign(folder, "outcome=scm", f"condition={condition}", *more)
    return folder / "campaign"


def raw(folder: Path, part: str) -> pd.DataFrame:
    paths = [path for path in sorted(folder.rglob("part-*.parquet")) if part in str(path)]
    return pd.concat([pd.read_parquet(path) for path in paths if "_execution" not in str(path)])


def critical(before: int, after: int) -> bool:
    return before in CRITICAL and (after == -1 or GROUPS[after] != GROUPS[before])


def test_scm_shares_are_those_of_the_rows(scms: Path) -> None:
    shares = scm_shares(Campaign.load(scms)).set_index("what")
    for condition in ("correct", "misclassified"):
        rows = raw(scms, f"id-{condition}")
        sdc = rows[rows["faulty_class"] != rows["golden_class"]]
        hit = [critical(r.golden_class, r.faulty_class) for r in sdc.itertuples()]
        found = shares.loc[f"faults in {condition} images"]
        assert (found["scm"], found["n"], found["runs"]) == (sum(hit), len(sdc), 1500)
        assert found["share"] == pytest.approx(np.mean(hit))
        assert found["joint"] == pytest.approx(sum(hit) / 1500)
        # a bootstrap of this test's own, drawing whole images
        draw, by_image = np.random.default_rng(1), sdc.assign(hit=hit).groupby("sample_index")
        sums = by_image["hit"].agg(["sum", "size"]).to_numpy()
        chosen = draw.integers(0, len(sums), (2000, len(sums)))
        again = sums[chosen].sum(1)
        low, high = np.quantile(again[:, 0] / again[:, 1], [0.025, 0.975])
        assert found["low"] == pytest.approx(low, abs=0.02)
        assert found["high"] == pytest.approx(high, abs=0.02)
        assert found["images"] == len(sums)
    clean = next(scms.rglob("clean.parquet"))
    golden = pd.read_parquet(clean).query("split == 'evaluation'")
    wrong = golden[golden["class"] != golden["label"]]
    hit = [critical(r["label"], r["class"]) for _, r in wrong.iterrows()]
    found = shares.loc["fault-free"]
    assert (found["scm"], found["n"], found["runs"]) == (sum(hit), len(wrong), len(golden))
    low, high = proportion_confint(sum(hit), len(wrong), method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_the_scm_figure_and_section(scms: Path) -> None:
    loaded = Campaign.load(scms)
    (figure,) = scm(loaded)
    assert isinstance(figure, Figure)
    assert figure.render()["svg"]
    section = scm_section(loaded)
    assert section is not None
    pd.testing.assert_frame_equal(section.data, figure.data)
    said = differences(section.data)
    assert len(said) == 3
    assert all("significant (p =" in line and "3,000 injections" in line for line in said)
    text = write_report(scms)
    assert "faults in misclassified images" in text
    whole = " ".join((scms / "report" / "report.md").read_text().split())
    assert "Faults are drawn for such images alone as the fault-free network classifies" in whole
    assert "An SDC is safety-critical (SCM) if it leads from a class of the critical" in whole
    assert "figures (svg, pdf, png, csv): scm" in text


def test_a_difference_by_closed_form() -> None:
    """Two shares of independent errors: the pooled z-test by hand."""
    row = {"network": "m", "dataset": "d"}
    free = {**row, "what": "fault-free", "share": 0.2, "n": 400, "effective_n": 400.0, "runs": 2000}
    faults = {**row, "what": "faults in correct images", "share": 0.4, "n": 100}
    faults |= {"effective_n": 50.0, "runs": 5000}
    (said,) = differences(pd.DataFrame([free, faults]))
    pooled = (80 + 20) / 450
    z = 0.2 / math.sqrt(pooled * (1 - pooled) * (1 / 400 + 1 / 50))
    p = math.erfc(z / math.sqrt(2))
    assert "+20.00 points" in said
    assert f"(p = {p:.2g})" in said
    assert "(60 and 400)" in said  # 3,000 injections give 60 errors here


def test_sdc_rates_stand_beside_the_published_ones(
    scms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Campaign.load(scms)
    section = sdc_section(loaded)
    assert section is not None
    assert set(section.data["source"]) == {"campaign"}  # digits are not the publication's data
    for condition, row in section.data.set_index("condition").iterrows():
        rows = raw(scms, f"id-{condition}")
        k = int((rows["faulty_class"] != rows["golden_class"]).sum())
        assert (row["sdcs"], row["sdc_n"]) == (k, 1500)
        limits = proportion_confint(k, 1500, method="wilson")
        assert (row["sdc_low"], row["sdc_high"]) == pytest.approx(limits)
        p = k / 1500
        assert row["wald"] == pytest.approx(1.96 * math.sqrt(p * (1 - p) / 1500))
    monkeypatch.setattr(published, "data_of", lambda name: "ImageNet")
    both = sdc_section(loaded)
    assert both is not None
    theirs = both.data[both.data["source"] == "published"].set_index("model")
    assert theirs["sdcs"].to_dict() == {"VGG16": 106, "ResNet50": 43, "DenseNet121": 36}
    low, high = proportion_confint(43, 3000, method="wilson")
    row = theirs.loc["ResNet50"]
    assert (row["sdc_low"], row["sdc_high"]) == pytest.approx((low, high))


def test_published_rates_are_multiples_of_one_in_3000() -> None:
    for known in published.SDC_RATES:
        assert abs(known.sdc * 3000 - round(known.sdc * 3000)) < 0.16  # two decimals of a per cent
    assert published.data_of("cifar100_npz") == "CIFAR-100"
    assert published.data_of("imagenet_npz") == "ImageNet"
    assert published.data_of("digits") == ""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loss")
    more = ["outcome=loss", "outcome.among=correct", "probes=[confidence,loss]", "runs=1200"]
    campaign(folder, *more, "fault_model.mark_super_layers=true")
    return folder / "campaign"


def test_layers_are_ranked_by_their_rate(losses: Path) -> None:
    section = layers_section(Campaign.load(losses))
    assert section is not None
    rows = raw(losses, "id")
    counted = rows[rows["golden_class"] == rows["label"]]
    manifest = json.loads(next(losses.rglob("none-loss/manifest.json")).read_text())
    macs = {layer["layer"]: layer["macs"] for layer in manifest["layers"]}
    data = section.data
    assert data["estimate"].is_monotonic_decreasing
    assert data["rank"].tolist() == list(range(1, len(data) + 1))
    for row in data.to_dict("records"):
        here = counted[counted["layer"] == row["layer"]]
        failed = here["class_changed"]
        assert (row["failures"], row["correct"]) == (failed.sum(), len(here))
        limits = proportion_confint(failed.sum(), len(here), method="wilson")
        assert (row["low"], row["high"]) == pytest.approx(limits, abs=1e-12)
        exponent = failed & here["bit"].between(23, 30)
        assert row["exponent_failures_by_field"] == exponent.sum()
        assert row["mac_share"] == pytest.approx(macs[row["layer"]] / sum(macs.values()))
        change = (here["faulty_loss"] - here["golden_loss"]).abs()
        finite = change[np.isfinite(change)]
        assert row["delta_loss"] == pytest.approx(finite.mean())
        assert row["delta_loss_nonfinite"] == len(here) - len(finite)
        capped = np.where(np.isfinite(change), np.minimum(change, 10), 10)
        assert row["delta_loss_capped"] == pytest.approx(capped.mean())
        spread = capped.std(ddof=1) / math.sqrt(len(here))
        half = row["delta_loss_capped_high"] - row["delta_loss_capped"]
        assert half == pytest.approx(1.98 * spread, rel=0.02)
    assert "super" in section.blocks[0].headers


def test_few_originally_correct_runs_are_warned_of(scms: Path, tmp_path: Path) -> None:
    section = layers_section(Campaign.load(scms))
    assert section is not None
    assert not any("Caution" in str(note) for block in section.blocks for note in block.notes)
    campaign(tmp_path, "outcome=sdc", "outcome.among=correct", "model.weights=random", "runs=400")
    section = layers_section(Campaign.load(tmp_path / "campaign"))
    assert section is not None
    notes = " ".join(str(note) for block in section.blocks for note in block.notes)
    assert "of 400 runs are originally correct runs; the rates are of these alone" in notes
    assert "fewer than 100 originally correct runs in" in notes


def test_the_delta_sweep_is_that_of_rows_and_images(losses: Path) -> None:
    (figure,) = sweep(Campaign.load(losses))
    assert isinstance(figure, Figure)
    rows = raw(losses, "id")
    golden = pd.read_parquet(next(losses.rglob("clean.parquet")))
    golden = golden[(golden["split"] == "evaluation") & (golden["population"] == "id")]
    for kind, frame, lead, klass in (
        ("with a fault", rows, "faulty_top2diff", "faulty_class"),
        ("fault-free", golden, "top2diff", "class"),
    ):
        part = figure.data[figure.data["kind"] == kind].set_index("delta")
        assert list(part.index) == list(range(41))
        for delta in (0, 7, 40):
            right = (frame[klass] == frame["label"]) & (frame[lead] >= delta)
            assert part.loc[delta, "accuracy"] == pytest.approx(right.mean())
    assert figure.render()["png"]


def test_other_outcomes_have_none_of_it(tmp_path: Path) -> None:
    campaign(tmp_path, "ood_method=odin", "ood_dataset=digits_unseen", "runs=60")
    loaded = Campaign.load(tmp_path / "campaign")
    assert sdc_section(loaded) is None
    assert scm_section(loaded) is None
    assert [*scm(loaded), *sweep(loaded)] == []


def test_figures_of_several_datasets(scms: Path, losses: Path) -> None:
    """A kind of error, or a network, that one of the panels lacks stands in the legend, too."""
    (shares,) = scm(Campaign.load(scms))
    assert isinstance(shares, Figure)
    other = shares.data.assign(dataset="other", network="second")
    other = other[other["what"] == "faults in misclassified images"]
    first = shares.data[shares.data["what"] != "faults in misclassified images"]
    drawing = shares.draw(pd.concat([first, other], ignore_index=True))
    (legend,) = drawing.legends
    assert {text.get_text() for text in legend.get_texts()} == set(shares.data["what"])
    (curves,) = sweep(Campaign.load(losses))
    assert isinstance(curves, Figure)
    both = pd.concat([curves.data, curves.data.assign(dataset="other", model="second")])
    (legend,) = curves.draw(both).legends
    assert sum("second" in text.get_text() for text in legend.get_texts()) == 2


def test_what_differs_is_in_the_label(scms: Path) -> None:
    """Faults of two passes, or models of faults, of one network are not one point."""
    found = scm_shares(Campaign.load(scms))
    assert set(found["network"]) == {"digits_resnet"}
    names = found.to_dict("records")
    two = pd.DataFrame([{**row, "fault_pass": p} for row in names for p in ("first", "second")])
    assert set(network_labels(two, NAMES[2:])) == {"digits_resnet, first", "digits_resnet, second"}
