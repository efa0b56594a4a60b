"""SDC rates of networks beside the published ones, and safety-critical shares (TensorFI+)."""

import math

import numpy as np
import pandas as pd

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.estimates import UNPROTECTED, summarise, with_unprotected
from progip.analysis.scm_shares import FAULT_FREE, WITH_FAULTS, network_labels, scm_shares
from progip.records import EVERY_PASS
from progip.report import formats
from progip.report.layout import Block, Section, Value
from progip.report.published import tensorfi_plus as published
from progip.statistics import Difference, compare_independent, rate

OURS, THEIRS = "campaign", "published"
SDC_HEADERS = [
    "network", "data", "images", "pass", "top-1, %", "SDC, %", "95 % interval", "Wald ±, points",
    "SDCs / n",
]  # fmt: skip
SDC_READING = (
    f"Published: {published.CITATION} Its counts follow from the printed rates, which are whole "
    f"multiples of 1/{published.INJECTIONS:,}. Its layers are those of Keras, every operation with "
    "an output but the first and the last; compare with fault_model.layer_types=null, "
    "model.operations=true and skip_last=true. Intervals are Wilson's; Wald ± is 1.96 standard "
    "errors, the error bar of the source's kind."
)
SCM_HEADERS = [
    "network", "data", "errors", "SCM, %", "95 % interval", "SCMs / errors", "images",
    "SCM per run, %",
]  # fmt: skip
#: what tells networks of one dataset apart, beside images and pass, which have columns
LABELLED = ("fault_model", "number_format")
SCM_READING = (
    "SCM: share of safety-critical among the errors. Errors are misclassifications without faults, "
    "SDCs with faults; intervals with faults are by bootstrap over images, since runs share them."
)


def sdc_section(campaign: Campaign) -> Section | None:
    """SDC rates by network and condition, unprotected; None for an outcome without SDCs."""
    if campaign.declared.name not in published.OUTCOMES:
        return None
    cells = with_unprotected(campaign.cells, campaign.kinds)
    cells = cells[(cells["protection"] == UNPROTECTED) & (cells["done"] > 0)]
    by = ["model", *SETTING, "fault_pass", "protection"]
    rows = []
    for _, row in summarise(cells, by, campaign.interval, campaign.kinds).iterrows():
        name = "sdc_rate" if "sdc_rate" in row else "failure_rate"
        found = {key: row[key] for key in (*by[:-1],)}
        found |= {"source": OURS, "accuracy": _accuracy(campaign, row)}
        found |= {f"sdc{end}": row[f"{name}{end}"] for end in ("", "_low", "_high", "_n")}
        found["sdcs"] = row["sdc_failures"]
        rows.append(found)
    ours = pd.DataFrame(rows)
    for row, label in zip(rows, network_labels(ours, LABELLED) if rows else (), strict=True):
        row["network"] = label
    shown = {published.data_of(name) for name in (ours["dataset"] if rows else ())} - {""}
    for known in published.SDC_RATES:
        if known.data in shown:
            k = round(known.sdc * published.INJECTIONS)
            found = {
                "network": f"{known.model} (published)",
                "model": known.model,
                "dataset": known.data,
                "source": THEIRS,
            }
            found |= {"condition": "", "fault_pass": "", "accuracy": known.accuracy, "sdcs": k}
            estimate = rate(k, published.INJECTIONS)
            found |= {"sdc": estimate.estimate, "sdc_low": estimate.low}
            found |= {"sdc_high": estimate.high, "sdc_n": published.INJECTIONS}
            rows.append(found)
    data = pd.DataFrame(rows)
    if rows:
        n = data["sdc_n"].clip(lower=1)
        wald = 1.96 * (data["sdc"] * (1 - data["sdc"]) / n) ** 0.5
        data["wald"] = wald.where(data["fault_pass"] != EVERY_PASS)  # of independent runs alone
    lines = [_sdc_line(row) for _, row in data.iterrows()]
    notes = [SDC_READING] if shown else []
    block = Block("", SDC_HEADERS, lines, notes if rows else ["No run is done yet."])
    source = "misclassification.sdc_section(campaign).data"
    return Section("sdc", "SDC rates by network", [block], data, source)


def _accuracy(campaign: Campaign, row: pd.Series) -> float:
    base = campaign.base
    if base.empty:
        return math.nan
    same = [base[name] == row[name] for name in ("model", "dataset", "number_format")]
    here = base[np.logical_and.reduce(same)]
    if here.empty:
        return math.nan
    first = here.iloc[0]
    return float(first["id_correct"] / first["accuracy_images"])


def _sdc_line(row: pd.Series) -> list[str]:
    return [
        Value(row["network"], row.name, "network"),
        Value(row["dataset"], row.name, "dataset"),
        row["condition"],
        row["fault_pass"],
        Value(formats.percent(row["accuracy"]), row.name, "accuracy"),
        Value(formats.percent(row["sdc"]), row.name, "sdc"),
        Value(formats.span(row["sdc_low"], row["sdc_high"]), row.name, "sdc_low", "sdc_high"),
        Value(formats.percent(row["wald"]), row.name, "wald"),
        Value(
            f"{formats.count(row['sdcs'])} / {formats.count(row['sdc_n'])}",
            row.name,
            "sdcs",
            "sdc_n",
        ),
    ]


def scm_section(campaign: Campaign) -> Section | None:
    """SCM shares, and which of them differ; None for another outcome."""
    if campaign.declared.name != "scm":
        return None
    data = scm_shares(campaign)
    lines = [_scm_line(row) for _, row in data.iterrows()]
    blocks = [Block("", SCM_HEADERS, lines, [SCM_READING, *_published(data)])]
    if len(data):
        blocks.append(Block("", notes=differences(data) or ["There is nothing to compare yet."]))
    source = "misclassification.scm_section(campaign).data"
    return Section("scm", "Safety-critical misclassification", blocks, data, source)


def _scm_line(row: pd.Series) -> list[str]:
    return [
        Value(row["network"], row.name, "network"),
        Value(row["dataset"], row.name, "dataset"),
        row["what"],
        Value(formats.percent(row["share"]), row.name, "share"),
        Value(formats.span(row["low"], row["high"]), row.name, "low", "high"),
        Value(f"{formats.count(row['scm'])} / {formats.count(row['n'])}", row.name, "scm", "n"),
        Value(formats.count(row["images"]), row.name, "images"),
        Value(formats.percent(row["joint"]), row.name, "joint"),
    ]


def _published(data: pd.DataFrame) -> list[str]:
    known = dict.fromkeys(published.data_of(name) for name in data["dataset"])
    return [
        f"Published for {name}: {shares[0]} without faults, around {shares[1]} with faults in "
        f"correct and {shares[2]} in misclassified images."
        for name, shares in published.SCM_SHARES.items()
        if name in known
    ]


def differences(data: pd.DataFrame) -> list[str]:
    """For each network: which shares differ, here and at the size of the publication.

    The number of errors is divided by the design effect of the images, and the two shares are
    compared as independent ones (Newcombe's interval, pooled z-test).
    """
    found = []
    correct, wrong = (WITH_FAULTS.format(name) for name in ("correct", "misclassified"))
    for (_, network), group in data.groupby(["dataset", "network"], sort=False):
        rows = {row["what"]: row for _, row in group.iterrows()}
        for a, b in ((correct, FAULT_FREE), (wrong, FAULT_FREE), (correct, wrong)):
            if a not in rows or b not in rows or not (rows[a]["n"] and rows[b]["n"]):
                continue
            ours = _compared(rows[a], rows[b], rows[a]["effective_n"], rows[b]["effective_n"])
            sizes = [_published_errors(rows[name]) for name in (a, b)]
            theirs = _compared(rows[a], rows[b], *sizes) if min(sizes) >= 1 else None
            text = (
                f"{network}: {a} against {b}: {formats.points(ours.estimate)} points "
                f"({formats.points(ours.low)} to {formats.points(ours.high)}), "
                f"{_verdict(ours.p_value)}"
            )
            if theirs is not None:
                text += (
                    f"; with the errors that {published.INJECTIONS:,} injections give here "
                    f"({sizes[0]:,.0f} and {sizes[1]:,.0f}) it would be "
                    f"{_verdict(theirs.p_value)}"
                )
            found.append(f"{text}.")
    return found


def _published_errors(row: pd.Series) -> float:
    """Errors that the size of the publication would give; without faults, those there are."""
    if row["what"] == FAULT_FREE:
        return float(row["n"])
    return round(published.INJECTIONS * row["n"] / row["runs"])


def _compared(a: pd.Series, b: pd.Series, n_a: float, n_b: float) -> Difference:
    sizes = [max(round(n), 1) for n in (n_a, n_b)]
    counts = [round(row["share"] * n) for row, n in zip((a, b), sizes, strict=True)]
    return compare_independent(counts[0], sizes[0], counts[1], sizes[1])


def _verdict(p_value: float) -> str:
    word = "significant" if p_value < 0.05 else "not significant"
    return f"{word} (p = {p_value:.2g})"
