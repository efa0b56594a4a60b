"""How many failures each protection detects at every number of false alarms on clean images."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from progip.analysis.campaign import DETECTOR, SETTING, Campaign
from progip.analysis.counting import COLUMNS, valid_rows
from progip.analysis.estimates import UNPROTECTED, summarise
from progip.analysis.manifests import CellFolder
from progip.errors import ProgipError
from progip.protections.base import Evidence, Protection, protection_from
from progip.records import POPULATIONS
from progip.statistics import Rate, rate, weighted_rate
from progip.storage import store

#: thresholds of a curve for each population, at even steps of the logarithm of its false alarms
STEPS = 40
ENDS = ("", "_low", "_high", "_n")
RATES = ("detected", "clean_id", "clean_ood")


def detection_curves(campaign: Campaign) -> pd.DataFrame:
    """Detection against false alarms for each detector and protection of a campaign.

    A curve moves one threshold over the protection's own order of suspicion
    (``Protection.suspicion``): an alarm is raised above it. Protections without such an order have
    their point alone.

    Returns:
        SETTING, DETECTOR and protection; threshold (NaN for the campaign's own limits, of which
        `own` is True); detected, the share of failures with an alarm, and clean_id and clean_ood,
        the shares of clean evaluation images with one: each with _low, _high (95 %) and _n, NaN
        where there is none. The points of a curve lie at thresholds where a clean image changes
        sides, the highest at the most suspicious image; above all of them stands (1, 1, 1).
    """
    if "detection_curves" not in campaign.memory:
        campaign.memory["detection_curves"] = _curves(campaign)
    found: pd.DataFrame = campaign.memory["detection_curves"]
    return found


_KEY = list(dict.fromkeys((*SETTING, *DETECTOR)))


def _curves(campaign: Campaign) -> pd.DataFrame:
    cells = campaign.single.cells
    cells = cells[(cells["correction"] == "") & (cells["protection"] != UNPROTECTED)]
    frames = []
    own = summarise(cells, [*_KEY, "protection"], campaign.interval, campaign.kinds)
    for _, row in own.iterrows():
        same = (cells[[*_KEY, "protection"]] == row[[*_KEY, "protection"]]).all(axis=1)
        names = {name: row[name] for name in (*_KEY, "protection")}
        point = {"threshold": math.nan, "own": True}
        for name, counted in zip(RATES, ("overall_accuracy", *_CLEAN), strict=True):
            point |= {f"{name}{end}": row[f"{counted}{end}"] for end in ENDS}
        frames.append(pd.DataFrame([{**names, **point}]))
        if row["failures"]:
            curve = _moved(campaign, cells.index[same].tolist())
            frames += [curve.assign(**names)] if curve is not None else []
    columns = [
        *_KEY,
        "protection",
        "threshold",
        "own",
        *(f"{r}{end}" for r in RATES for end in ENDS),
    ]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )


_CLEAN = tuple(f"clean_{population}_alarm_rate" for population in POPULATIONS)


def _moved(campaign: Campaign, cells: list[int]) -> pd.DataFrame | None:
    """The curve of one protection over its cells; None where it has no order, or no clean rows."""
    folders = [campaign.folders[cell] for cell in cells]
    made = (folders[0].manifest.get("config") or {}).get("protection") or {}
    try:
        protection = protection_from(made)
    except ProgipError:  # a class that is not installed here
        return None
    clean: dict[str, NDArray[np.float64]] = {}
    suspicion, weights = [], []
    for cell, folder in zip(cells, folders, strict=True):
        rows = _clean_rows(folder, protection)
        if rows is None:
            return None
        population = str(folder.manifest["cell"]["population"])
        usual = rows[rows["split"] == "calibration"]
        usual = _evidence(usual[usual["population"].isin(protection.calibrated_on)])
        limits = folder.manifest.get("thresholds") or {}
        mine = rows[(rows["split"] == "evaluation") & (rows["population"] == population)]
        known = _ordered(protection, _evidence(mine), usual, limits)
        if known is None:
            return None
        clean[population] = known
        failures = campaign.failures[campaign.failures["cell"] == cell].set_index("run_id")
        for evidence in _failing(campaign, folder, protection):
            found = _ordered(protection, evidence, usual, limits)
            assert found is not None  # it was not None of clean images
            suspicion.append(found)
            weights.append(failures.loc[evidence["run_id"], "weight"].to_numpy(np.float64))
    return _rates(clean, np.concatenate(suspicion), np.concatenate(weights))


def _ordered(
    protection: Protection, evidence: Evidence, usual: Evidence, limits: dict[str, float]
) -> NDArray[np.float64] | None:
    """Suspicion of executions, infinite where it is no number."""
    try:
        found = protection.suspicion(evidence, usual, limits)
    except KeyError:  # of evidence that rows do not keep, such as traces of layers
        return None
    return None if found is None else np.where(np.isnan(found), np.inf, found.astype(np.float64))


def _clean_rows(folder: CellFolder, protection: Protection) -> pd.DataFrame | None:
    """Golden rows of all images, with what the protection measured of those it evaluated."""
    path = store.execution_folder(folder.path) / store.CLEAN
    try:
        held = {field.name for field in pq.read_schema(path) if not pa.types.is_nested(field.type)}
        names = ["population", "split", "sample_index", *protection.watches]
        table = pq.read_table(path, columns=[n for n in names if n in held]).to_pandas()
        if not protection.measures:
            return table
        own = pq.read_table(folder.path / store.CLEAN).to_pandas()
    except (OSError, pa.ArrowException):
        return None
    population = folder.manifest["cell"]["population"]
    here = (table["population"] == population) & (table["split"] == "evaluation")
    image, measured = table["sample_index"].where(here), own.set_index("sample_index")
    return table.assign(**{f.name: image.map(measured[f.name]) for f in protection.measures})


def _failing(
    campaign: Campaign, folder: CellFolder, protection: Protection
) -> Iterator[dict[str, NDArray]]:
    """The evidence of failing runs, and their run_id."""
    kinds = campaign.kinds
    held = pq.read_schema(folder.shards[0]).names if folder.shards else []
    stored = {n: f"faulty_{n}" if f"faulty_{n}" in held else n for n in protection.watches}
    stored |= {field.name: field.name for field in protection.measures}
    stored = {name: column for name, column in stored.items() if column in held}
    names = tuple(dict.fromkeys((*COLUMNS, *kinds.flags, *stored.values())))
    for _, rows in valid_rows(folder, names, []):  # what is left out was said by the counts
        failed = kinds.failed(rows)
        evidence = {name: rows[column][failed] for name, column in stored.items()}
        yield {**evidence, "run_id": rows["run_id"][failed]}


def _evidence(rows: pd.DataFrame) -> dict[str, Any]:
    return {str(name): column.to_numpy() for name, column in rows.items()}


def _rates(
    clean: dict[str, NDArray[np.float64]],
    suspicion: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> pd.DataFrame:
    """The points of a curve: shares of clean images and of failures above each threshold."""
    steps = [np.sort(values)[::-1] for values in clean.values()]
    places = [np.geomspace(1, len(values), STEPS).astype(int) - 1 for values in steps]
    finite = [v[p][np.isfinite(v[p])] for v, p in zip(steps, places, strict=True)]
    thresholds = np.unique(np.concatenate([[-np.inf], *finite]))
    rows = []
    for threshold in thresholds:
        found = weighted_rate(suspicion > threshold, weights)
        point = {"threshold": threshold, "own": False}
        point |= {f"detected{e}": v for e, v in zip(ENDS, _numbers(found), strict=True)}
        for population in POPULATIONS:
            if population in clean:
                values = clean[population]
                counted = rate(int((values > threshold).sum()), len(values))
                numbers = _numbers(counted)
            else:
                numbers = (math.nan,) * len(ENDS)
            point |= {f"clean_{population}{e}": v for e, v in zip(ENDS, numbers, strict=True)}
        rows.append(point)
    return pd.DataFrame(rows)


def _numbers(found: Rate) -> tuple[float, ...]:
    return found.estimate, found.low, found.high, found.n


def detected_at(curves: pd.DataFrame, most: float) -> pd.DataFrame:
    """The best detection of each curve with at most a share of false alarms on clean ID images.

    Args:
        curves: as ``detection_curves`` gives them.
        most: that share.

    Returns:
        One row for each protection that has a curve: the point of the curve.
    """
    moved = curves[~curves["own"].astype(bool) & (curves["clean_id"] <= most)]
    best = moved.sort_values("threshold", kind="stable").drop_duplicates([*_KEY, "protection"])
    return best.sort_index()
