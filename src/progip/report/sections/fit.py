"""Failures in time and diagnostic coverage, in the terms of ISO 26262-5."""

import math

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import ALL, UNPROTECTED
from progip.analysis.fit import BY, fit_table
from progip.analysis.raw_rates import RawRates, read_raw_rates
from progip.report import formats
from progip.report.formats import inside
from progip.report.layout import Block, Section, Value, setting_title

SHOWN = 10  # layers of a printed table
OF_NETWORK = [
    "pass", "inputs", "protection", "exposure, Mbit", "raw, FIT", "failures / n", "left",
    "SPF or RF, FIT", "at most", "DC, %", "at least", "1 - RF / raw, %", "at least",
]  # fmt: skip
READING = [
    "FIT: failures in 10^9 hours of operation. Raw: rate per bit x bits x residency, the rates as "
    "given. Exposure: bits x residency, the share of the operating time for which a value is held "
    "and still needed. SPF, the rate of single-point faults (without a protection) = sum over "
    "layers of raw x P(failure | a bit of the layer flips); RF, of residual faults = sum of raw x "
    "P(failure without alarm). Safe faults = raw - SPF: masked faults are safe faults and no part "
    "of coverage. DC, the diagnostic coverage with respect to residual faults = 1 - RF / SPF; "
    "1 - RF / raw is what these bits give to the single-point fault metric (ISO 26262-5:2018, "
    "annex C).",
    "At most, at least: one-sided limits at {confidence} % confidence. One layer: Clopper and "
    "Pearson's; sums over layers: Fay and Feuer's (1997) gamma limit; coverage of a sum: Clopper "
    "and Pearson's at the effective number of failures. They hold for sampling of faults alone: "
    "the raw rates and residencies are taken as given, without uncertainty.",
    "n: {base}, the inputs on which there is something to lose. {memory}A failure counts as "
    "covered where the alarm is raised; that the system reaches its safe state in time, and that "
    "bits which no fault hits here ({missed}) are safe, is not shown here.",
]
IN_MEMORY = (
    "A fault in memory is one fault for all its images: it fails where any of them fails, and is "
    "covered where every failing one raises the alarm. "
)


def fit_section(campaign: Campaign, path: str, confidence: float = 0.95) -> Section:
    """Failures in time of the network and its layers, and coverage of each protection.

    Args:
        campaign: of single flipped bits.
        path: of the file with raw rates.
        confidence: of each one-sided limit.
    """
    rates = read_raw_rates(path)
    warnings: list[str] = []
    data = fit_table(campaign, rates, confidence, warnings)
    blocks = []
    detector = ("model", *SETTING, "ood_method")
    for key, group in by_group(data[data["layer"] == ALL], detector) if len(data) else ():
        model, *setting, method = key
        title = f"{model}, {method}: {setting_title(tuple(setting))}"
        blocks.append(Block(title, OF_NETWORK, [_network(row) for _, row in group.iterrows()]))
    for key, group in by_group(data[data["layer"] != ALL], BY) if len(data) else ():
        blocks.append(_layers(key, group))
    blocks.append(Block("Raw rates, as given", *_given(rates)))
    left_out = [f"Left out: {text}" for text in dict.fromkeys(warnings)]
    blocks.append(Block("", notes=[*_reading(campaign, data, confidence), *left_out]))
    source = f"fit.fit_section(campaign, {path!r}, {confidence!r}).data"
    return Section("fit", "Failures in time (FIT) and diagnostic coverage", blocks, data, source)


def _network(row: pd.Series) -> list[str]:
    return [
        row["fault_pass"],
        row["population"],
        row["protection"],
        _number(row, "exposure", f"{row['exposure'] / 1e6:.4g}"),
        _number(row, "raw"),
        Value(
            f"{formats.count(row['failures'])} / {formats.count(row['n'])}",
            row.name, "failures", "n",
        ),
        _number(row, "left", formats.count(row["left"])),
        *_figures(row),
    ]  # fmt: skip


def _figures(row: pd.Series) -> list[str]:
    return [
        _number(row, "residual"),
        _number(row, "residual_high"),
        *([formats.NOT_APPLICABLE, ""] if row["protection"] == UNPROTECTED else _coverage(row)),
        _number(row, "metric", formats.percent(row["metric"])),
        _number(row, "metric_low", formats.percent(row["metric_low"])),
    ]


def _coverage(row: pd.Series) -> list[str]:
    return [_number(row, name, formats.percent(row[name])) for name in ("coverage", "coverage_low")]


def _layers(key: tuple[str, ...], group: pd.DataFrame) -> Block:
    """The layers of one cell, those with the highest limit of failing bits first."""
    model, *setting, method, fault_pass, population = key
    bare = group[group["protection"] == UNPROTECTED]
    first = bare if len(bare) else group[group["protection"] == group["protection"].iloc[0]]
    order = first.sort_values("failing_high", ascending=False, kind="stable")
    protections = [name for name in group["protection"].unique() if name != UNPROTECTED]
    headers = ["layer", "exposure, Mbit", "raw, FIT", "failures / n", "SPF, FIT", "at most"]
    for name in protections:
        headers += [f"RF, {name}", "at most", f"DC, {name}, %", "at least"]
    lines = []
    known = {(row["layer"], row["protection"]): row for _, row in group.iterrows()}
    for _, row in order.head(SHOWN).iterrows():
        line = [row["layer"], _number(row, "exposure", f"{row['exposure'] / 1e6:.4g}")]
        line += [_number(row, "raw")]
        both = f"{formats.count(row['failures'])} / {formats.count(row['n'])}"
        line += [Value(both, row.name, "failures", "n")]
        line += [_number(row, "failing"), _number(row, "failing_high")]
        for name in protections:
            one = known[row["layer"], name]
            line += [_number(one, "residual"), _number(one, "residual_high"), *_coverage(one)]
        lines.append(line)
    notes = []
    if len(order) > SHOWN:
        notes.append(f"The first {SHOWN} of {len(order)} layers by their limit; all: fit.csv.")
    unseen = order[order["n"] == 0]
    if len(unseen):
        notes.append(
            f"{len(unseen)} layers were hit by no fault that can fail: their limit is all of their "
            "raw rate, here and in the sum."
        )
    title = f"{model}, {method}, {fault_pass}, {population}: {setting_title(tuple(setting))}"
    return Block(title, headers, lines, notes)


def _given(rates: RawRates) -> tuple[list[str], list[list[str]]]:
    headers = ["technology", "FIT per bit", "tensors", "passes", "residency", "source"]
    lines = []
    for entry in rates.entries:
        apart = "".join(f"; {name} {share:g}" for name, share in entry.residency_of.items())
        lines.append(
            [
                entry.technology,
                f"{entry.fit_per_bit:g}",
                ", ".join(entry.targets),
                ", ".join(entry.passes) or "all",
                f"{entry.residency:g}{apart}",
                entry.source,
            ]
        )
    return headers, lines


def _reading(campaign: Campaign, data: pd.DataFrame, confidence: float) -> list[str]:
    missed = {
        missing["layer"]
        for folder in campaign.folders
        for missing in (folder.manifest.get("coverage") or {}).get("not_hit", [])
    }
    words = {
        "confidence": f"{100 * confidence:g}",
        "base": inside(campaign.declared.base_title) if campaign.declared.base else "runs",
        "memory": IN_MEMORY if "all" in {*data.get("fault_pass", [])} else "",
        "missed": "layers " + ", ".join(sorted(missed)) if missed else "biases, buffers, control",
    }
    return [note.format(**words) for note in READING]


def _number(row: pd.Series, column: str, text: str = "") -> str:
    """A number that knows where it stands; a dash where there is none."""
    value = float(row[column])
    if math.isnan(value):
        return formats.ABSENT
    return Value(text or f"{value:.4g}", row.name, column)
