"""Failures detected against false alarms on clean ID and on clean OOD images, every protection."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import DETECTOR, SETTING, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED, summarise
from progip.report.detection_curves import ENDS, detection_curves
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words
from progip.report.published import progip as published

TITLE = "Detection against false alarms"
CAPTION = (
    "Share of failures detected against the share of clean evaluation images that raise a false "
    "alarm, ID images on the left and OOD images on the right, as all limits of a protection move "
    "together. The marker is the campaign's own limits, with 95 % intervals; these need not lie on "
    "the curve where a protection has several. Protections that do not order executions have a "
    "marker alone. A level line: published detection (publ.), whose false alarms are not known. Up "
    "and to the left is better. The horizontal scale is logarithmic above 0.1 %."
)
POPULATIONS = {"clean_id": "clean ID images", "clean_ood": "clean OOD images"}


def detection(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Curves of every protection, one row of panels per detector; none for a single protection."""
    data = detection_curves(campaign)
    data = data[(data[list(SETTING)] == list(setting)).all(axis=1)].reset_index(drop=True)
    if data["protection"].nunique() < 2:
        return []
    if data["detected"].isna().all():
        return [Absent("detection", TITLE, "no failure to detect")]
    if published.shown(campaign, setting):
        data = pd.concat([data, _published(data)], ignore_index=True)
    call = called("detection", setting)
    return [Figure("detection", TITLE, CAPTION, _alt(data), data, draw, call)]


def _published(data: pd.DataFrame) -> pd.DataFrame:
    """The published detection of each protection that is there, beside each detector."""
    theirs = summarise(published.overall_counts(), ["protection"])
    theirs = theirs[theirs["protection"].isin(set(data["protection"]) - {UNPROTECTED})]
    levels = theirs[[f"overall_accuracy{end}" for end in ENDS]].set_axis(
        [f"detected{end}" for end in ENDS], axis="columns"
    )
    levels = levels.assign(protection=theirs["protection"] + style.PUBLISHED, own=True)
    keys = list(dict.fromkeys((*SETTING, *DETECTOR)))
    return data[keys].drop_duplicates().merge(levels, "cross").reindex(columns=data.columns)


def _alt(data: pd.DataFrame) -> str:
    said = []
    for _, row in data[data["own"]].iterrows():
        found = [row[f"detected{end}"] for end in ENDS]
        false = [
            f"{words} {in_words(*(row[f'{n}{end}'] for end in ENDS))}"
            for n, words in POPULATIONS.items()
            if not np.isnan(row[n])
        ]
        said.append(
            f"{row['model']} {row['ood_method']} {row['protection']}: detects "
            f"{in_words(*found)}, false alarms: {', '.join(false) or 'not counted'}"
        )
    return f"Curves. At the campaign's own limits: {'; '.join(said)}."


def draw(data: pd.DataFrame) -> Drawing:
    """One row of panels per detector: false alarms on ID images, on OOD images."""
    detectors = list(by_group(data, ["model", "ood_method"]))
    drawing, axes = style.panels(len(detectors), 2, 2.9, sharex=True, sharey=True)
    looks = style.looks(dict.fromkeys(data["protection"]))
    for row, (key, group) in zip(axes, detectors, strict=True):
        for panel, (name, words) in zip(row, POPULATIONS.items(), strict=True):
            for (protection,), part in by_group(group, ["protection"]):
                _series(panel, part, name, protection, looks[protection])
            panel.set_title(f"{', '.join(key)}: {words}", loc="left")
            style.false_alarm_scale(panel)
        row[0].set_ylabel("failures detected, %")
    for panel in axes[-1]:
        panel.set_xlabel("false alarms, % of images")
    style.legend_below(drawing, axes[0, 0], 4)
    return drawing


def _series(panel: Axes, part: pd.DataFrame, name: str, protection: str, look: style.Look) -> None:
    own = part[part["own"].astype(bool)].iloc[0]
    if np.isnan(own[name]):
        panel.axhline(
            100 * own["detected"], color=look.color, ls=look.line, lw=0.8, label=protection
        )
        return
    curve = part[~part["own"].astype(bool)].sort_values("threshold", ascending=False)
    if len(curve):
        panel.step(
            100 * curve[name],
            100 * curve["detected"],
            where="post",
            color=look.color,
            ls=look.line,
            lw=1.2,
        )
    panel.errorbar(
        100 * own[name], 100 * own["detected"], fmt=look.marker, color=look.color,
        xerr=style.percent_off(own, name), yerr=style.percent_off(own, "detected"),
        elinewidth=0.7, capsize=2, label=protection, ls=look.line,
    )  # fmt: skip
    points = pd.concat([part[part["own"].astype(bool)], curve.iloc[::8]])
    words = [
        f"{protection}: detects {in_words(*(row[f'detected{end}'] for end in ENDS))}, "
        f"false alarms on {POPULATIONS[name]} {in_words(*(row[f'{name}{end}'] for end in ENDS))}"
        for _, row in points.iterrows()
    ]
    style.mark(panel, 100 * points[name], 100 * points["detected"], words)
