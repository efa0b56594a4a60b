"""Failures that protections leave, by the bits and layers hit and by how near the image was."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from progip.analysis.bit_groups import bit_groups
from progip.analysis.campaign import Campaign
from progip.analysis.estimates import UNPROTECTED, in_order
from progip.analysis.manifests import format_of
from progip.analysis.observing import ExecutedRuns
from progip.analysis.site_rates import executions_of, rate_of_sums
from progip.statistics.intervals import effective_interval

BITS, MARGIN, LAYER = "bits", "margin", "layer"
COLUMNS = ["model", "by", "group", "protection", "failures", "left"]
COLUMNS += ["detected", "detected_low", "detected_high"]
#: shares of the evaluation images, nearest to the OOD threshold first, at which groups end
NEAREST = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NOT_FINITE = "score not finite"


def missed(campaign: Campaign, setting: tuple[str, ...]) -> pd.DataFrame:
    """Failures of each network and how many of them each protection detects, in three groupings.

    Args:
        campaign: that was observed.
        setting: values of SETTING.

    Returns:
        COLUMNS: `by` is BITS (bits of a field of the number format), MARGIN (the share of its
        population's evaluation images whose fault-free score lies as near to the OOD threshold as
        that of the image; only where there is one) or LAYER, in network order; `failures` and
        `left` count runs, `detected` is the (weighted) share with its 95 % interval, over whole
        fault maps where runs share them. Groups without failures are left out. All OOD methods,
        passes and populations are added up.
    """
    frames = []
    orders: dict[str, list[str]] = {BITS: [], MARGIN: [], LAYER: []}
    for execution in executions_of(campaign, setting):
        failing, order = _grouped(campaign, execution)
        for by, groups in order.items():
            orders[by] += [group for group in groups if group not in orders[by]]
        for cell in execution.cells:
            name = campaign.cells.loc[cell, "protection"] if cell in campaign.cells.index else ""
            if name in ("", UNPROTECTED):
                continue
            own = campaign.failures[campaign.failures["cell"] == cell]
            own = own.merge(failing, "left", on="run_id", validate="one_to_one")
            frames.append(own.assign(model=execution.names["model"], protection=name, unit=cell))
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat(frames, ignore_index=True)
    return pd.DataFrame(_counted(rows, orders), columns=COLUMNS)


def _counted(rows: pd.DataFrame, orders: dict[str, list[str]]) -> Iterator[dict[str, object]]:
    for model in dict.fromkeys(rows["model"]):
        for by, groups in orders.items():
            mine = rows[(rows["model"] == model) & rows[by].notna()]
            for group in groups:
                here = mine[mine[by] == group]
                for protection in in_order("protection", here["protection"].unique()):
                    part = here[here["protection"] == protection]
                    counts = {"failures": len(part), "left": int((~part["alarm"]).sum())}
                    names = {"model": model, "by": by, "group": group, "protection": protection}
                    yield {**names, **counts, **_detected(part)}


def _detected(part: pd.DataFrame) -> dict[str, float]:
    """The share of failures with an alarm, each weighing as it does."""
    alarm, weight = part["alarm"].to_numpy(bool), part["weight"].to_numpy(np.float64)
    seen = alarm * weight
    sums = {"squares": weight**2, "cross": 0 * weight, "failure_squares": seen**2}
    maps = 0
    if (part["map"] >= 0).any():
        _, number = np.unique(part[["unit", "map"]].to_numpy(), axis=0, return_inverse=True)
        whole, found = (np.bincount(number.ravel(), values) for values in (weight, seen))
        sums = {"squares": whole**2, "cross": whole * found, "failure_squares": found**2}
        maps = len(whole)
    rate = rate_of_sums(
        {
            "correct": len(part),
            "failures": int(alarm.sum()),
            "weight": weight.sum(),
            "failure_weight": seen.sum(),
            **{name: values.sum() for name, values in sums.items()},
            "maps": maps,
        }
    )
    # where what is missed weighs little, a handful of misses says nothing of heavier failures: the
    # sample is never taken for larger than its weights make it, sum(w)^2 / sum(w^2)
    size = min(rate.effective_n, float(weight.sum() ** 2 / sums["squares"].sum()))
    low, high = effective_interval(np.array(rate.estimate * size), size)
    return {"detected": rate.estimate, "detected_low": float(low), "detected_high": float(high)}


def _grouped(
    campaign: Campaign, execution: ExecutedRuns
) -> tuple[pd.DataFrame, dict[str, Sequence[str]]]:
    """run_id, and the group of each failing run in every grouping; the groups in order."""
    folder = campaign.folders[execution.cells[0]]
    groups = bit_groups(format_of(folder.manifest)["fields"])[1]
    failing = execution.failing[["run_id", "sample_index", "layer", "bit"]].copy()
    near, names = _nearness(execution, folder.manifest)
    failing[BITS] = failing["bit"].map(groups)
    failing[LAYER] = failing["layer"].where(failing["layer"] != "")
    failing[MARGIN] = failing["sample_index"].map(near)
    bits = list(dict.fromkeys(name for _, name in sorted(groups.items())))
    kept = failing[["run_id", BITS, MARGIN, LAYER]]
    return kept, {BITS: bits, MARGIN: names, LAYER: execution.layers}


def _nearness(execution: ExecutedRuns, manifest: dict) -> tuple[dict[int, str], list[str]]:
    """The group of each evaluation image by its distance from the OOD threshold."""
    clean, threshold = execution.clean, (manifest.get("thresholds") or {}).get("ood", math.nan)
    if clean is None or math.isnan(threshold):
        return {}, []
    population = manifest["cell"]["population"]
    clean = clean[(clean["split"] == "evaluation") & (clean["population"] == population)]
    distance: NDArray[np.float64] = np.abs(clean["score"].to_numpy(np.float64) - threshold)
    finite = np.isfinite(distance)
    ends = [round(share * finite.sum()) for share in NEAREST]
    starts = [f"{100 * share:g}" for share in (0.0, *NEAREST[:-1])]
    names = [f"{low}–{100 * share:g} %" for low, share in zip(starts, NEAREST, strict=True)]
    rank = np.argsort(np.argsort(distance, kind="stable"), kind="stable")
    place = np.searchsorted(ends, rank, side="right")
    labels = [names[p] if ok else NOT_FINITE for p, ok in zip(place, finite, strict=True)]
    return dict(zip(clean["sample_index"].tolist(), labels, strict=True)), [*names, NOT_FINITE]
