"""The part of the report about faults at a rate: accuracy against error rate, and who noticed."""

import math

import pandas as pd

from progip.analysis.campaign import Campaign, by_group
from progip.analysis.error_rates import CURVE, rate_table
from progip.analysis.estimates import in_order
from progip.analysis.manifests import USUAL
from progip.records import EVERY_PASS
from progip.report import formats
from progip.report.layout import Block, Section

NOTES = [
    "Runs take the images in turn; each round over all of them is one fault map. Intervals are "
    "95 %, over fault maps of these images (variance within each image, Wilson at the effective "
    "size); with one map they are those of independent runs. Over other images accuracy varies "
    "more: accuracy_images_low and _high in the CSV, by bootstrap over images.",
    "Row 0: without faults, the protection in place. SDC: the class differs from that of the same "
    "network without faults. A correcting protection has runs of its own, with the same faults.",
]
IN_MEMORY = (
    "Faults in memory: a fault map stays for a whole round of images, so each map is one unit: "
    "intervals are those between maps (Cochran, eq. 6.13, Wilson at the effective size)."
)
ALARM_NOTES = [
    "Alarms: among runs with at least one hit; among runs whose class these faults change in the "
    "unprotected network; among clean images (a correcting protection raises one where it finds "
    "an error). Corrected values that were hit: of all values it changed, those that a fault had "
    "flipped, or that took over a flipped value element by element. Hits corrected: most hits are "
    "too small to matter, so this is low by nature. Numbers in brackets: 95 % interval; n.",
]


def rates_section(campaign: Campaign) -> Section | None:
    """Tables of faults at a rate; None where the campaign has none."""
    data = rate_table(campaign.folders)
    if data.empty:
        return None
    blocks = []
    for curve, group in by_group(data, CURVE):
        title = curve_title(dict(zip(CURVE, curve, strict=True)))
        blocks += [_curve_block(title, group), _alarm_block(group)]
    stay = (data["fault_pass"] == EVERY_PASS).any()
    notes = [IN_MEMORY, *NOTES[1:]] if stay else NOTES
    blocks.append(Block("", notes=notes + ALARM_NOTES))
    return Section("rates", "Faults at a rate", [b for b in blocks if b.rows or b.notes], data)


def curve_title(curve: dict[str, str]) -> str:
    """What a curve is drawn for, in a line."""
    title = f"{curve['model']}, {curve['dataset']}, {curve['family']} at a rate"
    if curve["ood_method"] != "none":
        title += f", {curve['ood_method']} against {curve['ood_dataset']}"
        title += f", {curve['population']} inputs, {curve['fault_pass']}"
    for name, word in (("number_format", "numbers"), ("condition", "images")):
        if curve[name] != USUAL[name]:
            title += f", {word} {curve[name]}"
    return title


def _curve_block(title: str, group: pd.DataFrame) -> Block:
    """Rows of rates, a pair of columns for each protection: accuracy and SDC."""
    names = in_order("protection", group["protection"].unique())
    headers = ["error rate", "hits per run"]
    for name in names:
        headers += [f"{name}: accuracy, %", "SDC, %"]
    rows = []
    clean = {row["protection"]: row for _, row in group.iterrows()}
    if group["clean_accuracy"].notna().any():
        row = ["0", "0"]
        for name in names:
            row += [_cell(clean[name], "clean_accuracy"), "0"]
        rows.append(row)
    for rate, part in group.groupby("rate"):
        there = {row["protection"]: row for _, row in part.iterrows()}
        row = [f"{rate:g}", f"{part['hits'].sum() / part['runs'].sum():.3g}"]
        for name in names:
            quantities = ("accuracy", "sdc")
            row += [_cell(there[name], q) if name in there else "" for q in quantities]
        rows.append(row)
    return Block(title, headers, rows, [_size(group)])


def _size(group: pd.DataFrame) -> str:
    """What n is."""
    maps, images = group["maps"].unique(), group["images"].unique()
    if len(maps) == 1 and len(images) == 1 and maps[0]:
        size = f"{maps[0]} fault maps of {images[0]:,} images"
        if maps[0] == 1:
            size = f"1 fault map of {images[0]:,} images"
        return f"n = {group['runs'].max():,} runs per cell: {size}; row 0: {images[0]:,} images."
    runs = sorted(group["runs"].unique())
    listed = f"{runs[0]:,} to {runs[-1]:,}" if len(runs) > 1 else f"{runs[0]:,}"
    return f"n = {listed} runs per cell over {max(images):,} images; row 0: {max(images):,} images."


def _alarm_block(group: pd.DataFrame) -> Block:
    watched = group[group["alarm_hit_n"].notna()]
    headers = [
        "protection", "error rate", "alarms, % of hit runs", "% of harmful runs",
        "% of clean images", "corrected values", "% of them hit", "% of hits corrected",
    ]  # fmt: skip
    names = in_order("protection", watched["protection"].unique())
    rows = []
    for name in names:
        for _, row in watched[watched["protection"] == name].iterrows():
            rates = ["alarm_hit", "alarm_harmful", "alarm_clean", "precision", "recall"]
            cells = [_cell(row, rate, with_n=True) for rate in rates]
            corrected = formats.count(row["precision_n"])
            rows.append([name, f"{row['rate']:g}", *cells[:3], corrected, *cells[3:]])
    return Block("", headers, rows)


def _cell(row: pd.Series, name: str, with_n: bool = False) -> str:
    """98.7 (98.5–98.9), or with its n: 98.7 (98.5–98.9; 1,000)."""
    if math.isnan(row[name]):
        return formats.ABSENT
    span = formats.span(row[f"{name}_low"], row[f"{name}_high"], 1)
    size = f"; {formats.count(row[f'{name}_n'])}" if with_n else ""
    return f"{formats.percent(row[name], 1)} ({span}{size})"
