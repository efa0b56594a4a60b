"""Faults at a rate: accuracy and silent data corruption of every cell, with their intervals."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from progip.analysis.estimates import UNPROTECTED
from progip.analysis.manifests import IDENTITY, USUAL, CellFolder, correction_of, fault_rate
from progip.statistics import Rate, cluster_bootstrap, rate
from progip.statistics.clustered_sums import ClusteredSums
from progip.statistics.intervals import rate_from_variance

#: what a curve is drawn for; along it the rate changes
CURVE = (
    "model", "dataset", "ood_dataset", "population", "condition", "ood_method", "number_format",
    "fault_pass", "family",
)  # fmt: skip
COLUMNS = ("run_id", "sample_index", "label", "golden_class", "faulty_class", "alarm", "hits")
OF_CORRECTION = ("corrected", "corrected_hit", "hits_corrected")
RESAMPLES = 500


def rate_table(folders: tuple[CellFolder, ...]) -> pd.DataFrame:
    """One row per cell of faults at a rate, in order of CURVE, protection and rate.

    Columns: CURVE, protection, rate, runs, images, maps (whole rounds over the images), and of each
    quantity its estimate, _low, _high (95 %) and _n, fractions of 1:

    - accuracy and sdc (the class is not that of the same network without faults), over runs; the
      interval is over fault maps of these images. accuracy_images_low and _high: over images, too;
    - clean_accuracy: of the network without faults over all evaluation images, the corrections of a
      protection in place; NaN under a condition, which chooses images by it;
    - alarm_hit, alarm_harmful, alarm_clean: alarms among runs with a hit, among those whose class
      changes without protection, and among clean images;
    - precision: corrected values that were hit, of all corrected; recall: hits that were corrected
      somewhere, of all hits.

    n is runs, images, values or hits. NaN where a quantity does not apply.
    """
    read = [(cell, _rows(cell)) for cell in folders if not math.isnan(fault_rate(cell))]
    bare = {_faults_of(c): r for c, r in read if c.manifest["cell"]["protection"] == UNPROTECTED}
    rows = [_describe(cell, rows, bare.get(_faults_of(cell))) for cell, rows in read if len(rows)]
    frame = pd.DataFrame(rows)
    order = [*CURVE, "protection", "rate"]
    return frame.sort_values(order, ignore_index=True) if rows else frame


def over_maps(events: NDArray[np.bool_], images: NDArray[np.int64]) -> Rate:
    """The rate of an event over runs that repeat a fixed set of images under other faults.

    Faults are independent, the images always the same ones: the variance is that within each image
    over its runs, as of a sample stratified by image. The interval is Wilson's at the effective
    size (`rate_from_variance`); where no image has two runs it is that of independent runs, which
    is wider.

    Args:
        events: (runs,). images: (runs,) position of each run's image.
    """
    runs = np.bincount(images)
    hits = np.bincount(images, events)[runs > 0]
    runs = runs[runs > 0]
    n, k = int(runs.sum()), int(hits.sum())
    repeated = runs > 1
    if not repeated.all():
        return rate(k, n)
    share = hits / runs
    variance = float((runs**2 * share * (1 - share) / (runs - 1)).sum()) / n**2
    return rate_from_variance(
        n=n, events=k, estimate=k / n, variance=variance, kish=n, degrees=int((runs - 1).sum())
    )


def over_rounds(events: NDArray[np.bool_], maps: NDArray[np.int64]) -> Rate:
    """The rate of an event over runs that share their faults map by map: each map is one unit.

    The interval is that of all other tables (`ClusteredSums`).

    Args:
        events: (runs,). maps: (runs,) number of each run's map.
    """
    sums = ClusteredSums([1.0], [1.0], 2)
    sums.add_clusters(np.zeros(len(events)), events, np.ones(len(events)), maps)
    return sums.moments().rate(np.array([False, True]), np.array([True, True]))


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Rate:
    """Sum of parts over sum of wholes with the variance over runs (Cochran, eq. 6.13).

    Args:
        part, whole: (runs,), part at most whole.
    """
    k, n = int(part.sum()), int(whole.sum())
    if not n:
        return rate(0, 0)
    p = k / n
    variance = float(((part - p * whole) ** 2).sum()) / n**2
    return rate_from_variance(n=n, events=k, estimate=p, variance=variance, kish=n)


@dataclass(frozen=True)
class _Quantity:
    name: str
    rate: Rate | None

    def columns(self) -> dict[str, float]:
        r = self.rate
        if r is None or not r.n:
            empty = (math.nan, math.nan, math.nan, 0 if r else math.nan)
            values: tuple[float, ...] = empty
        else:
            values = (r.estimate, r.low, r.high, r.n)
        ends = ("", "_low", "_high", "_n")
        return {f"{self.name}{end}": value for end, value in zip(ends, values, strict=True)}


def _describe(cell: CellFolder, rows: pd.DataFrame, bare: pd.DataFrame | None) -> dict[str, Any]:
    manifest, at = cell.manifest, fault_rate(cell)
    chosen = manifest["cell"]["condition"] != USUAL["condition"]
    clean_images = (manifest.get("clean") or {}).get("images")
    known = manifest.get("condition_images") if chosen else clean_images
    images = int(known or rows["sample_index"].nunique())
    sample = rows["sample_index"].to_numpy(np.int64)
    right = (rows["faulty_class"] == rows["label"]).to_numpy()
    changed = (rows["faulty_class"] != rows["golden_class"]).to_numpy()
    alarm, hit = rows["alarm"].to_numpy(bool), rows["hits"].to_numpy() > 0
    per_map = manifest.get("runs_per_map")
    if per_map:  # faults that stay in memory
        maps = rows["run_id"].to_numpy(np.int64) // per_map

    def repeated(events: NDArray[np.bool_]) -> Rate:
        return over_rounds(events, maps) if per_map else over_maps(events, sample)

    def alarms(chosen: NDArray[np.bool_]) -> Rate:
        if per_map and chosen.any():
            return over_rounds(alarm[chosen], maps[chosen])
        return rate(int(alarm[chosen].sum()), int(chosen.sum()))

    harmful = _harmful(rows, bare)
    labelled = manifest["cell"]["population"] == "id"
    clean = manifest.get("clean") or {}
    accuracy = (manifest.get("base_metrics") or {}).get("id_accuracy")
    watched = manifest["cell"]["protection"] != UNPROTECTED
    of_images = labelled and not per_map  # images of one map are no independent clusters
    corrects = "corrected_hit" in rows
    quantities = [
        _Quantity("accuracy", repeated(right) if labelled else None),
        _Quantity("sdc", repeated(changed)),
        _Quantity(
            "clean_accuracy",
            rate(accuracy["correct"], accuracy["images"])
            if labelled and accuracy and not chosen
            else None,
        ),
        _Quantity("alarm_hit", alarms(hit) if watched else None),
        _Quantity("alarm_harmful", alarms(harmful) if watched and bare is not None else None),
        _Quantity(
            "alarm_clean",
            rate(clean["alarms"], clean["images"]) if watched and clean else None,
        ),
        _Quantity("precision", _ratio_of(rows, "corrected_hit", "corrected") if corrects else None),
        _Quantity("recall", _ratio_of(rows, "hits_corrected", "hits") if corrects else None),
    ]
    result: dict[str, Any] = {name: manifest["cell"][name] for name in CURVE if name != "family"}
    result["family"] = family(cell)
    result |= {"protection": manifest["cell"]["protection"], "rate": at, "runs": len(rows)}
    hits = int(rows["hits"].sum())
    result |= {"images": images, "maps": len(rows) // (per_map or images), "hits": hits}
    for quantity in quantities:
        result |= quantity.columns()
    limits = (math.nan, math.nan)
    if of_images:
        wide = cluster_bootstrap(right, np.ones(len(right)), sample, resamples=RESAMPLES)
        limits = wide.low, wide.high
    result |= {"accuracy_images_low": limits[0], "accuracy_images_high": limits[1]}
    return result


def family(cell: CellFolder) -> str:
    """The name of the fault model without its rate."""
    name = str(cell.manifest["cell"]["fault_model"])
    section = (cell.manifest.get("identity") or {}).get("fault_model") or {}
    return name.removesuffix(f"_{section.get('rate')}")


def _harmful(rows: pd.DataFrame, bare: pd.DataFrame | None) -> NDArray[np.bool_]:
    """Whether the same faults change the class of each run in the unprotected network."""
    if bare is None:
        return np.zeros(len(rows), dtype=bool)
    changed = bare.loc[bare["faulty_class"] != bare["golden_class"], "run_id"]
    return rows["run_id"].isin(changed).to_numpy()


def _ratio_of(rows: pd.DataFrame, part: str, whole: str) -> Rate:
    return ratio(rows[part].to_numpy(np.int64), rows[whole].to_numpy(np.int64))


def _faults_of(cell: CellFolder) -> tuple[Any, ...]:
    names = [name for name in IDENTITY if name != "protection"]
    return (*cell.key(*names), cell.manifest["seed"])


def _rows(cell: CellFolder) -> pd.DataFrame:
    """The columns needed of every shard that can be read; `Campaign.load` has warned of others."""
    # which values were hit, and corrected, is told of activations alone
    more = OF_CORRECTION if correction_of(cell) and not cell.manifest.get("runs_per_map") else ()
    parts = []
    for shard in cell.shards:
        try:
            parts.append(pq.read_table(shard, columns=[*COLUMNS, *more]).to_pandas())
        except (OSError, pa.ArrowException, KeyError):
            continue
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=[*COLUMNS, *more])
    return frame.drop_duplicates("run_id")
