"""The publication's runtime table, from what `python -m progip runtime` measured."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from progip.deploy.runtime import BASELINE, FOLDER, SCHEMA_VERSION
from progip.errors import ProgipError
from progip.report.layout import Block, Section
from progip.report.published import progip as published
from progip.statistics import Median, mean_of_median_ratios, median_difference, median_ratio

CLOCKS = ("wall", "processor")
#: what one table holds
SETTING = ("device", "threads", "batch")
DETECTOR = ("model", "dataset", "ood_method")
READING = [
    "Runtime of a guarded detector in % of the unprotected one: the median over pairs of calls, "
    "neighbours in time, first and second by chance; 95 % interval by bootstrap over pairs. wall: "
    "from the images to class, score, verdict and alarm on the host; processor: processor time of "
    "the process in that call, which a busy machine disturbs less. extra: the median difference in "
    "microseconds a call, wall and processor time. unprotected again: the same detector against "
    "itself; its distance from 100 is what noise does here.",
    "per layer: a hook in every activation compares and waits, as the publication describes its "
    "Ranger; fused: extremes stay on the device and are compared once, at the end. Both raise the "
    "same alarms.",
]


def runtime_sections(folder: str | Path, beside: bool = False) -> list[Section]:
    """The runtime table of the measurements in FOLDER/runtime; none where there are none.

    The published mean accompanies that of the published networks; beside: beside any.

    Raises:
        ProgipError: a file there is not what `python -m progip runtime` writes.
    """
    files = sorted((Path(folder) / FOLDER).glob("*.json"))
    if not files:
        return []
    measured, summaries = zip(*map(_read, files), strict=True)
    data: pd.DataFrame = pd.concat(summaries, ignore_index=True)
    blocks = []
    for setting, group in data.groupby(list(SETTING), sort=True):
        chosen = [m for m in measured if tuple(m[key] for key in SETTING) == setting]
        blocks.append(_block(chosen, group, beside))
    blocks.append(Block("", notes=READING))
    source = "runtime.runtime_sections(folder)[0].data"
    return [Section("runtime", "Runtime", blocks, data, source)]


def _read(file: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A measurement and its summary."""
    try:
        measured: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if measured["kind"] != "runtime" or measured["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"it is not a runtime of schema version {SCHEMA_VERSION}")
        for variant in measured["variants"]:
            for clock in CLOCKS:
                variant[clock] = np.array(variant[clock], dtype=np.float64)
        return measured, _summary(measured)
    except (OSError, ValueError, KeyError, TypeError, ProgipError) as error:
        raise ProgipError(
            f"{file} cannot be read as a runtime measurement ({error}); measure again or remove it"
        ) from error


def _summary(measured: dict[str, Any]) -> pd.DataFrame:
    """One row a variant: ratios as fractions of 1, times in microseconds a call."""
    rows = []
    for variant in measured["variants"]:
        row: dict[str, Any] = {key: measured[key] for key in (*SETTING, *DETECTOR, "ood_dataset")}
        row |= {key: variant[key] for key in ("protection", "range_checks")}
        row["pairs"] = len(variant["wall"])
        for clock in CLOCKS:
            row[f"{clock}_unprotected_us"] = float(np.median(variant[clock][:, 0]))
            for name, found in (
                ("ratio", median_ratio(variant[clock])),
                ("extra_us", median_difference(variant[clock])),
            ):
                row[f"{clock}_{name}"] = found.estimate
                row[f"{clock}_{name}_low"], row[f"{clock}_{name}_high"] = found.low, found.high
        known = published.runtime(measured["model"], measured["ood_method"])
        row["published_ratio"] = known.get(variant["protection"], math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def _block(measured: list[dict[str, Any]], group: pd.DataFrame, beside: bool) -> Block:
    """One device, number of threads and batch size: variants as columns."""
    first = measured[0]
    variants = _variants(measured)
    rows = []
    for (model, _, method), part in group.groupby(list(DETECTOR), sort=False):
        by_variant = {(r["protection"], r["range_checks"]): r for _, r in part.iterrows()}
        columns = [by_variant.get(variant) for variant in variants]
        milliseconds = part["wall_unprotected_us"].iloc[0] / 1000
        rows.append([f"{model}, {method}: {milliseconds:.3g} ms", *[""] * len(variants)])
        for label, write in LINES:
            rows.append([label, *("–" if c is None else write(c) for c in columns)])
    notes = []
    for variant in variants:
        notes += _mean_sentence(measured, variant, beside)
    title = f"{first['batch']} image{'s' * (first['batch'] > 1)} a call, {_machine(first)}"
    return Block(title, ["", *map(_label, variants)], rows, notes, mixed=True)


def _mean_sentence(
    measured: list[dict[str, Any]], variant: tuple[str, str], beside: bool
) -> list[str]:
    """The mean over networks and methods, and how it compares with the publication's."""
    name = variant[0]
    groups = [v for m in measured for v in m["variants"] if _key(v) == variant]
    wall, processor = (mean_of_median_ratios([v[clock] for v in groups]) for clock in CLOCKS)
    sentence = (
        f"{_label(variant)}: {_percent(wall)} % wall, {_percent(processor)} % processor; mean over "
        f"{len(groups)} network{'s' * (len(groups) > 1)} x method."
    )
    theirs = all(published.runtime(m["model"], m["ood_method"]) for m in measured)
    if name not in published.RUNTIME_MEAN or not (theirs or beside):
        return [sentence]
    said = published.RUNTIME_MEAN[name]
    agreement = (
        "ours is below it"
        if wall.high < said
        else "ours is above it"
        if wall.low > said
        else "it lies within our interval"
    )
    return [f"{sentence} Published: {100 * said:.2f} % ({published.SETUP}); {agreement} (wall)."]


def _variants(measured: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(_key(v) for m in measured for v in m["variants"]))


def _key(variant: dict[str, Any]) -> tuple[str, str]:
    return variant["protection"], variant["range_checks"]


def _label(variant: tuple[str, str]) -> str:
    name, form = variant
    return (
        "unprotected again"
        if name == BASELINE
        else f"{name}, {form.replace('_', ' ')}"
        if form
        else name
    )


def _machine(measured: dict[str, Any]) -> str:
    hardware = measured["hardware"]
    count = measured["threads"]
    where = hardware["gpu"] or f"{hardware['processor']} ({hardware['cores']} cores)"
    version = measured["versions"]["torch"]
    return f"{where}, {count} thread{'s' * (count > 1)}, torch {version}"


def _percent(found: Median) -> str:
    return f"{100 * found.estimate:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def _ratio(row: pd.Series, name: str) -> str:
    return "–" if math.isnan(row[name]) else f"{100 * row[name]:.2f}"


def _span(row: pd.Series, name: str) -> str:
    return f"{100 * row[f'{name}_low']:.2f}–{100 * row[f'{name}_high']:.2f}"


#: what stands below a network and method, for each variant
LINES: tuple[tuple[str, Callable[[pd.Series], str]], ...] = (
    ("· wall, %", lambda row: _ratio(row, "wall_ratio")),
    ("· 95 % interval", lambda row: _span(row, "wall_ratio")),
    ("· processor, %", lambda row: _ratio(row, "processor_ratio")),
    ("· 95 % interval", lambda row: _span(row, "processor_ratio")),
    ("· published, %", lambda row: _ratio(row, "published_ratio")),
    (
        "· extra µs, wall / processor",
        lambda row: f"{row['wall_extra_us']:,.0f} / {row['processor_extra_us']:,.0f}",
    ),
    ("· pairs", lambda row: f"{row['pairs']:,}"),
)
