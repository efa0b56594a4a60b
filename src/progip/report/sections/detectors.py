"""Protections as detectors of faults: what each detects, and each kind of false alarm apart."""

import pandas as pd

from progip.analysis.campaign import DETECTOR, SETTING, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED, summarise
from progip.report import formats, layout
from progip.report.detection_curves import detected_at, detection_curves
from progip.report.layout import Block, Section, Value, setting_title

BY = list(dict.fromkeys((*SETTING, *DETECTOR)))
#: share of false alarms on clean ID images at which curves are compared
MOST = 0.01
RATES = {
    "detected": "overall_accuracy",
    "clean ID": "clean_id_alarm_rate",
    "clean OOD": "clean_ood_alarm_rate",
    "harmless": "harmless_alarm_rate",
}
AT = f"at {100 * MOST:g} % ID"
HEADERS = ["protection", *RATES, AT]
READING = (
    "Failures detected, and false alarms on clean ID images, on clean OOD images and in harmless "
    "faults, in % with 95 % intervals; all passes and both populations together. The last column "
    "is detection with all limits of a protection moved together until at most "
    f"{100 * MOST:g} % of the clean ID evaluation images raise an alarm, so that protections are "
    "compared at the same price; that limit is chosen on the images that it is counted on. A dash: "
    "its limits cannot be moved."
)


def detectors_section(campaign: Campaign) -> Section | None:
    """One line per protection for each detector; None where fewer than two watch any."""
    cells = campaign.single.cells
    cells = cells[(cells["correction"] == "") & (cells["protection"] != UNPROTECTED)]
    if cells["protection"].nunique() < 2:
        return None
    data = summarise(cells, [*BY, "protection"], campaign.interval, campaign.kinds)
    best = detected_at(detection_curves(campaign), MOST)
    kept = ["detected", "detected_low", "detected_high", "detected_n", "clean_id", "clean_ood"]
    named = {name: f"{name}_at" for name in kept}
    data = data.merge(best[[*BY, "protection", *kept]].rename(columns=named), "left")
    blocks = [_block(key, group) for key, group in by_group(data, BY)]
    notes = [READING]
    if layout.weighted(data):
        notes.append("Rows carry weights: rates are weighted, n is of rows.")
    blocks.append(Block("", notes=notes))
    return Section(
        "detectors",
        "Protections as detectors of faults",
        blocks,
        data,
        "detectors.detectors_section(campaign).data",
    )


def _block(key: tuple[str, ...], group: pd.DataFrame) -> Block:
    names = dict(zip(BY, key, strict=True))
    title = f"{names['model']}, {names['ood_method']}"
    setting = setting_title(tuple(names[name] for name in SETTING))
    rows = []
    for _, row in group.iterrows():
        rates = [layout.with_interval(row, counted) for counted in RATES.values()]
        rows.append([row["protection"], *rates, _at(row)])
        rows.append(["· n", *(layout.size(row, counted) for counted in RATES.values()), ""])
    return Block(f"{title}: {setting}", HEADERS, rows)


def _at(row: pd.Series) -> str:
    if pd.isna(row["detected_at"]):
        return formats.ABSENT
    low, high = row["detected_low_at"], row["detected_high_at"]
    text = f"{formats.percent(row['detected_at'], 1)} ({formats.span(low, high, 1)})"
    return Value(text, row.name, "detected_at", "detected_low_at", "detected_high_at")
