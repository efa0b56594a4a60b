"""Sums of rows by the layer and the bit that were hit, for maps and for tables of layers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from progip.analysis.kinds import Kinds
from progip.outcomes.declared import Measure

PLACES = 65  # of bits: none, and 0 to 63
#: thresholds of the sweep over Top2Diff, in points
TOP2DIFF = np.arange(0, 41)
Rows = Mapping[str, NDArray]


def site_sums(rows: Rows, kinds: Kinds) -> pd.DataFrame:
    """Sums by layer and bit, and by ``map`` where rows name one.

    Where runs were ended early, a run counts in the base as ever and a failure its ``roulette``
    times as much. Runs with many hits name no layer and are left out. Sums of squares are of single
    rows; those of whole maps ``of_maps`` makes, once all rows of each are there.
    """
    rows = {name: values[rows["layer"] != ""] for name, values in rows.items()}
    codes, layers = pd.factorize(rows["layer"])
    maps, number = pd.factorize(rows["map"]) if "map" in rows else (0 * codes, np.zeros(1))
    # bit -1: a fault that flips nothing
    place = (maps * len(layers) + codes) * PLACES + rows["bit"] + 1
    there, where = np.unique(place, return_inverse=True)
    base, failed = kinds.declared.base, kinds.failed(rows)
    correct = rows[base] if base else np.ones(len(codes), dtype=bool)
    w = rows["weight"]
    of_failure = w * rows["roulette"] if "roulette" in rows else w
    sums = {
        "rows": None,
        "correct": correct,
        **{event.name: rows[event.flag] for event in kinds.declared.events},
        "failures": failed,
        "weight": correct * w,
        "squares": correct * w * w,
        "failure_weight": failed * of_failure,
        "failure_squares": failed * of_failure**2,
    }
    size = len(there)
    frame = pd.DataFrame({n: np.bincount(where, v, minlength=size) for n, v in sums.items()})
    site, bit = np.divmod(there, PLACES)
    one, layer = np.divmod(site, max(len(layers), 1))
    frame.insert(0, "layer", np.asarray(layers, dtype=object)[layer])
    frame.insert(1, "bit", bit - 1)
    return frame.assign(map=number[one]) if "map" in rows else frame


def of_maps(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Sums over fault maps of sums that were made map by map, each map being one unit.

    Args:
        frame: of ``site_sums``; rows of one map may stand in several places.
        names: of the columns that are grouped by.

    Returns:
        the sums, squares now those of whole maps, with ``cross`` (of weight and failure weight) and
        ``maps``.
    """
    whole = frame.groupby(["map", *names], sort=False).sum().reset_index()
    weight, failed = whole["weight"], whole["failure_weight"]
    whole = whole.assign(
        squares=weight**2, failure_squares=failed**2, cross=weight * failed, maps=1
    )
    return whole.drop(columns="map").groupby(list(names), sort=False).sum()


def measure_sums(rows: Rows, measures: Sequence[Measure]) -> pd.DataFrame:
    """Sums by layer, and ``map`` where rows name one, of each measure over finite rows of its base.

    Columns ``NAME:n`` (rows), ``:odd`` (not finite), and of weights w and values x ``:w``, ``:wx``,
    ``:ww``, ``:wwx``, ``:wwxx``.
    """
    places = {name: rows[name] for name in ("layer", "map") if name in rows}
    groups = pd.DataFrame(places).groupby(list(places), sort=False)
    codes = groups.ngroup().to_numpy()
    frame = groups.size().reset_index()[list(places)]
    for measure in measures:
        x = rows[measure.column].astype(np.float64)
        if measure.minus:
            with np.errstate(invalid="ignore"):
                x = x - rows[measure.minus]
        base = rows[measure.base] if measure.base else np.ones(len(x), dtype=bool)
        finite = np.isfinite(x)
        w = rows["weight"] * (base & finite)
        x = np.where(finite, x, 0.0)
        sums = {
            "n": base & finite,
            "odd": base & ~finite,
            "w": w,
            "wx": w * x,
            "ww": w * w,
            "wwx": w * w * x,
            "wwxx": w * w * x * x,
        }
        for name, values in sums.items():
            frame[f"{measure.name}:{name}"] = np.bincount(codes, values, minlength=len(frame))
    return frame


def measures_of_maps(frame: pd.DataFrame, measures: Sequence[Measure]) -> pd.DataFrame:
    """``measure_sums`` by layer of sums that were made map by map; ``:units`` counts the maps."""
    whole = frame.groupby(["map", "layer"], sort=False).sum().reset_index()
    for measure in measures:
        w, wx = (whole[f"{measure.name}:{end}"] for end in ("w", "wx"))
        for end, value in (("ww", w * w), ("wwx", w * wx), ("wwxx", wx * wx), ("units", w > 0)):
            whole[f"{measure.name}:{end}"] = value
    return whole.drop(columns="map").groupby("layer", sort=False).sum().reset_index()


def measured(row: Mapping[str, float], name: str) -> dict[str, float]:
    """Mean, interval (Student's, 95 %), n and rows that are not finite, from ``measure_sums``."""
    n, w = row[f"{name}:n"], row[f"{name}:w"]
    found = {"n": n, "nonfinite": row[f"{name}:odd"]}
    if n < 1:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan} | {
            f"{name}_{key}": value for key, value in found.items()
        }
    mean = row[f"{name}:wx"] / w
    spread = row[f"{name}:wwxx"] - 2 * mean * row[f"{name}:wwx"] + mean**2 * row[f"{name}:ww"]
    half = math.nan
    units = row.get(f"{name}:units", n)  # rows, or the fault maps that they share
    if units > 1:
        variance = max(spread, 0.0) / w**2 * units / (units - 1)
        half = float(stats.t.ppf(0.975, units - 1)) * math.sqrt(variance)
    ends = {f"{name}_low": mean - half, f"{name}_high": mean + half}
    return {name: mean, **ends, **{f"{name}_{key}": value for key, value in found.items()}}


def swept_rows(rows: Rows) -> NDArray[np.int64]:
    """(TOP2DIFF + 2,) runs whose faulty class is right with a Top2Diff of at least each threshold.

    Then the runs of which the class is right, and all runs. A Top2Diff that is NaN reaches none.
    """
    right = rows["faulty_class"] == rows["label"]
    lead = rows["faulty_top2diff"]
    reached = (right[:, None] & (lead[:, None] >= TOP2DIFF)).sum(0)
    return np.concatenate([reached, [right.sum(), len(right)]]).astype(np.int64)


def about_layers(manifest: Mapping[str, Any]) -> pd.DataFrame:
    """One row per layer of a manifest, calls added up: type, neurons, macs, super_layer."""
    frame = pd.DataFrame(manifest.get("layers") or [], columns=[*_ABOUT, "super_layer"])
    sums = frame.groupby("layer", sort=False).agg(
        {"type": "first", "neurons": "sum", "macs": "sum", "super_layer": "min"}
    )
    return sums.reset_index()


_ABOUT = ["layer", "type", "neurons", "macs"]
