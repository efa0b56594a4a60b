import math
from pathlib import Path

import pandas as pd
import pytest
from campaign_factory import Write, runs

from progip.analysis.campaign import SETTING
from progip.analysis.comparing import compare_protections
from progip.analysis.estimates import missing_cells, summarise, with_unprotected
from progip.report import Campaign
from progip.report.published import progip as published
from progip.report.sections.breakdown import base_metrics, base_section
from progip.report.sections.words import sentence
from progip.statistics import auroc_interval, compare_paired, proportion_interval, weighted_rate

OVERALL = [*SETTING, "protection"]


def row_of(frame: pd.DataFrame, **where: str) -> pd.Series:
    for name, value in where.items():
        frame = frame[frame[name] == value]
    (row,) = (row for _, row in frame.iterrows())
    return row


def test_the_publications_own_table() -> None:
    table = summarise(published.overall_counts(), ["protection"]).set_index("protection")
    assert list(table.index) == ["none", "progip", "ranger"]
    expected = {  # sheet 03
        "ranger": (99.71, 97.78, 98.57, (98.32, 98.78)),
        "progip": (99.59, 98.15, 98.74, (98.50, 98.94)),
    }
    for name, (c, d, overall, interval) in expected.items():
        row = table.loc[name]
        rates = (row["classification_accuracy"], row["detection_accuracy"], row["overall_accuracy"])
        assert [round(100 * rate, 2) for rate in rates] == [c, d, overall]
        limits = (row["overall_accuracy_low"], row["overall_accuracy_high"])
        assert tuple(round(100 * limit, 2) for limit in limits) == interval
        assert row["overall_accuracy_n"] == 10_127
        assert round(100 * row["originally_correct_rate"], 2) == 83.54
        assert math.isnan(row["harmless_alarm_rate"])
    assert round(100 * table.loc["none", "failure_rate"], 3) == 0.505
    assert math.isnan(table.loc["none", "overall_accuracy"])


def test_every_rate_with_n_and_interval(campaign: Path, write_cell: Write) -> None:
    rows = runs(classification="x..", detection="xx.", harmless="x....", wrong="x.")
    write_cell(rows, protection="progip")
    row = row_of(summarise(Campaign.load(campaign).cells, OVERALL))
    expected = {
        "originally_correct_rate": (11, 13),
        "classification_accuracy": (1, 3),
        "detection_accuracy": (2, 3),
        "overall_accuracy": (3, 6),
        "failure_rate": (3, 11),
        "harmless_alarm_rate": (2, 7),
        "harmless_correct_alarm_rate": (1, 5),
        "clean_id_alarm_rate": (3, 200),
    }
    for name, (k, n) in expected.items():
        assert (row[name], row[f"{name}_n"]) == (pytest.approx(k / n), n), name
        assert (row[f"{name}_low"], row[f"{name}_high"]) == proportion_interval(k, n)
    assert math.isnan(row["clean_ood_alarm_rate"])


def test_clean_images_count_once_whatever_the_passes(campaign: Path, write_cell: Write) -> None:
    for fault_pass in ("first_forward", "backward", "second_forward"):
        for method in ("odin", "mahalanobis"):
            write_cell(
                runs(harmless=".."),
                protection="progip",
                fault_pass=fault_pass,
                ood_method=method,
            )
    row = row_of(summarise(Campaign.load(campaign).cells, OVERALL))
    assert row["clean_id_alarm_rate_n"] == 400
    assert row["clean_id_alarm_rate"] == 6 / 400


def test_weighted_rows_give_weighted_rates(campaign: Path, write_cell: Write) -> None:
    rows = runs(detection="x..", harmless="." * 5)
    weights = [0.5, 2, 1, 1, 1, 0.25, 3, 1]
    for row, weight in zip(rows, weights, strict=True):
        row["weight"] = float(weight)
    write_cell(rows, protection="progip")
    row = row_of(summarise(Campaign.load(campaign).cells, OVERALL))
    expected = weighted_rate([False, True, True] + [False] * 5, weights)
    assert row["failure_rate"] == pytest.approx(expected.estimate)
    assert row["failure_rate_low"] == pytest.approx(expected.low)
    assert row["failure_rate_high"] == pytest.approx(expected.high)
    assert row["detection_accuracy"] == pytest.approx(0.5 / 3.5)
    assert row["detection_accuracy_n"] == 3


def test_protections_keep_their_own_denominators(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="....", harmless="."))
    write_cell(runs(detection="x.xx", harmless="."), protection="ranger")
    write_cell(runs(detection="x.", harmless=""), planned=5, protection="progip")
    table = summarise(Campaign.load(campaign).cells, OVERALL)
    assert list(table["protection"]) == ["none", "progip", "ranger"]
    assert list(table["unfinished"]) == [0, 1, 0]
    progip = row_of(table, protection="progip")
    assert (progip["detection_accuracy"], progip["detection_accuracy_n"]) == (0.5, 2)
    assert row_of(table, protection="ranger")["detection_accuracy"] == 0.75


def test_unprotected_is_derived_once_from_the_fullest(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="xxxx", harmless="x"), protection="ranger")
    write_cell(runs(detection="x"), planned=5, protection="progip")
    cells = with_unprotected(Campaign.load(campaign).cells)
    none = row_of(cells, protection="none")
    assert (none["done"], none["detection_left"], none["alarms"]) == (5, 4, 0)
    write_cell(runs(detection="..", harmless="..."))
    measured = with_unprotected(Campaign.load(campaign).cells)
    assert row_of(measured, protection="none")["detection_failures"] == 2


def test_cell_without_rows_has_no_rate(campaign: Path, write_cell: Write) -> None:
    write_cell([], planned=10, protection="progip")
    row = row_of(summarise(Campaign.load(campaign).cells, OVERALL))
    assert row["done"] == 0
    assert math.isnan(row["overall_accuracy"])
    assert (row["failure_rate_low"], row["failure_rate_high"], row["failure_rate_n"]) == (0, 1, 0)


@pytest.mark.parametrize(("nonfinite", "dominant"), [(48, False), (49, True)])
def test_nan_dominant_means_more_than_96_percent(
    campaign: Path, write_cell: Write, nonfinite: int, dominant: bool
) -> None:
    rows = runs(detection="." * 50, harmless="..")
    for row in rows[:nonfinite]:
        row["nonfinite_score"] = True
    write_cell(rows, fault_pass="second_forward")
    row = row_of(summarise(Campaign.load(campaign).cells, [*OVERALL, "fault_pass"]))
    assert row["nonfinite_failures"] == nonfinite
    assert row["nan_dominant"] == dominant


def test_missing_cells_of_the_grid(campaign: Path, write_cell: Write) -> None:
    for protection in ("none", "progip"):
        write_cell(runs(harmless="."), protection=protection)
    write_cell(runs(harmless="."), fault_pass="backward")
    write_cell(runs(harmless="."), dataset="cifar10", protection="ranger")  # another setting
    missing = missing_cells(Campaign.load(campaign).cells)
    assert [(m["fault_pass"], m["protection"]) for _, m in missing.iterrows()] == [
        ("backward", "progip")
    ]


def test_paired_comparison_by_hand(campaign: Path, write_cell: Write) -> None:
    # over both passes: both see 3, progip alone 4, ranger alone 1, neither 2
    write_cell(runs(detection="xxxxx..", harmless="x"), protection="progip")
    write_cell(runs(detection="xx...x.", harmless="."), protection="ranger")
    write_cell(runs(detection="xx.", harmless="x"), protection="progip", fault_pass="backward")
    write_cell(runs(detection="x..", harmless="."), protection="ranger", fault_pass="backward")
    write_cell(runs(detection="." * 7, harmless="."))
    table, warnings = compare_protections(Campaign.load(campaign))
    row = row_of(table)
    assert warnings == []
    expected = compare_paired(3, 4, 1, 2)
    assert (row["failures"], row["left_a"], row["left_b"]) == (10, 3, 6)
    assert (row["only_a_left"], row["only_b_left"], row["unmatched"]) == (1, 4, 0)
    assert row["difference"] == pytest.approx(0.3)
    assert (row["difference_low"], row["difference_high"]) == (expected.low, expected.high)
    assert row["p_value"] == row["p_holm"] == expected.p_value == pytest.approx(0.375)
    text = sentence(row, 1)
    assert "On the same 10 failures progip leaves 3 undetected and ranger 6" in text
    assert "is not significant" in text
    assert "Holm" not in text


def test_clear_difference_is_significant(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x" * 20), protection="progip")
    write_cell(runs(detection="." * 20), protection="ranger")
    row = row_of(compare_protections(Campaign.load(campaign))[0])
    assert row["significant"]
    assert "+100.00 points for progip" in sentence(row, 1).replace("+100 ", "+100.00 ")


def test_three_protections_are_adjusted(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x" * 6), protection="a")
    write_cell(runs(detection="." * 6), protection="b")
    write_cell(runs(detection="x" * 6), protection="c")
    table, _ = compare_protections(Campaign.load(campaign))
    assert list(table["p_value"]) == pytest.approx([1 / 32, 1, 1 / 32])
    assert list(table["p_holm"]) == pytest.approx([3 / 32, 1, 3 / 32])
    assert not table["significant"].any()
    assert "after Holm for 3 comparisons" in sentence(table.iloc[0], 3)
    assert "95 % interval after Holm" in sentence(table.iloc[0], 3)


def test_interval_and_p_value_of_a_comparison_have_the_same_correction(
    campaign: Path, write_cell: Write
) -> None:
    """Each interval is at the level at which Holm's method tests its pair."""
    for name, seen in (("a", "x" * 30), ("b", "." * 14 + "x" * 16), ("c", "x" * 24 + "." * 6)):
        write_cell(runs(detection=seen), protection=name)
    table, _ = compare_protections(Campaign.load(campaign))
    by_p = table.sort_values("p_value")
    for step, (_, row) in zip((3, 2, 1), by_p.iterrows(), strict=True):
        share = row["p_holm"] / row["p_value"]
        assert share == pytest.approx(step)
        assert row["difference_confidence"] == pytest.approx(1 - 0.05 / step)
        both = 30 - row["left_a"] - row["only_b_left"]
        cells = both, row["only_b_left"], row["only_a_left"], row["left_a"] - row["only_a_left"]
        expected = compare_paired(*cells, confidence=1 - 0.05 / step)
        found = row["difference_low"], row["difference_high"]
        assert found == pytest.approx((expected.low, expected.high))


def test_unfinished_cells_are_compared_on_what_both_have(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="xx", harmless=""), planned=4, protection="progip")
    write_cell(runs(detection="x...", harmless=""), protection="ranger")
    row = row_of(compare_protections(Campaign.load(campaign))[0])
    assert (row["failures"], row["unmatched"]) == (2, 2)
    assert "2 failures that only one of the two has run yet are left out" in sentence(row, 1)


def test_other_faults_are_not_compared(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="xx", harmless=".."), protection="progip")
    write_cell(runs(detection="x", harmless="..."), protection="ranger")
    table, warnings = compare_protections(Campaign.load(campaign))
    row = row_of(table)
    assert (row["cells"], row["failures"]) == (0, 0)
    assert "nothing to compare" in sentence(row, 1)
    assert "disagree on which runs failed" in warnings[0]


def test_base_metrics(campaign: Path, write_cell: Write) -> None:
    theirs = {"dataset": "cifar10", "ood_dataset": "tiny_imagenet_resize"}
    write_cell(runs(harmless="."), model="densenet_bc_100_12", **theirs)
    write_cell(runs(harmless="."), model="resnet20", **theirs)
    write_cell(runs(harmless="."), manifest={"base_metrics": None})
    table = base_metrics(Campaign.load(campaign).base)
    dense = row_of(table, model="densenet_bc_100_12")
    for name, k, n in (
        ("id_accuracy", 199, 200),
        ("fpr95", 5, 100),
        ("tpr", 191, 200),
        ("fpr", 6, 100),
    ):
        assert dense[name] == k / n
        assert (dense[f"{name}_low"], dense[f"{name}_high"]) == proportion_interval(k, n)
        assert dense[f"{name}_n"] == n
    assert (dense["auroc_low"], dense["auroc_high"]) == auroc_interval(0.99, 200, 100)
    assert (dense["published_id_accuracy"], dense["published_auroc"]) == (0.9519, 0.984)
    assert math.isnan(row_of(table, model="resnet20")["published_auroc"])
    assert math.isnan(row_of(table, model="digits_resnet")["auroc"])


@pytest.mark.parametrize(
    ("model", "dataset", "method", "auroc"),
    [
        ("densenet_bc_100_12", "cifar10", "odin", 0.984),
        ("DenseNet-BC", "cifar10", "mahalanobis", 0.964),
        ("resnet34", "cifar10", "odin", 0.903),
        ("resnet34", "cifar100", "odin", None),
        ("resnet18", "cifar10", "odin", None),
        ("resnet34", "cifar10", "energy", None),
    ],
)
def test_published_base_metrics(model: str, dataset: str, method: str, auroc: float | None) -> None:
    known = published.base_metrics(model, dataset, "tiny_imagenet_resize", method)
    assert (known and known.auroc) == auroc
    assert published.base_metrics(model, dataset, "svhn", method) is None


def test_base_metrics_at_epsilon_0(campaign: Path, write_cell: Write) -> None:
    plain = {
        "auroc": 0.97, "fpr95": 0.1, "id_images": 200, "ood_images": 100,
        "id_true_positives": 188, "ood_false_positives": 9, "threshold": 0.13,
    }  # fmt: skip
    write_cell(runs(harmless="."), ood_method="odin")  # of an earlier version
    told = {"base_metrics_unperturbed": plain}
    write_cell(runs(harmless="."), ood_method="odin", fault_pass="backward", manifest=told)
    write_cell(runs(harmless="."), ood_method="energy")
    found = Campaign.load(campaign)
    row = row_of(base_metrics(found.base), ood_method="odin")
    assert row["unperturbed_auroc"] == 0.97
    ends = row["unperturbed_auroc_low"], row["unperturbed_auroc_high"]
    assert ends == auroc_interval(0.97, 200, 100)
    for name, k, n in (("fpr95", 10, 100), ("tpr", 188, 200), ("fpr", 9, 100)):
        assert row[f"unperturbed_{name}"] == k / n
        ends = row[f"unperturbed_{name}_low"], row[f"unperturbed_{name}_high"]
        assert ends == proportion_interval(k, n)
    assert math.isnan(row_of(base_metrics(found.base), ood_method="energy")["unperturbed_auroc"])
    section = base_section(found)
    lines = [line[0] for line in section.blocks[0].rows]
    assert lines.count("· at epsilon 0") == 1
    at = section.blocks[0].rows[lines.index("· at epsilon 0")]
    assert lines.index("odin") < lines.index("· at epsilon 0")
    assert at[1:] == ["", "97.00", "10.00", "94.00", "9.00"]
    assert any("without its perturbation" in str(note) for note in section.blocks[-1].notes)
