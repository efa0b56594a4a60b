"""Protections against each other, on the same faults."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED
from progip.analysis.manifests import IDENTITY
from progip.statistics import compare_paired_weighted, paired_interval

LEVEL = 0.05
COLUMNS = [
    *SETTING,
    "protection_a",
    "protection_b",
    "cells",
    "failures",
    "unmatched",
    "left_a",
    "left_b",
    "only_a_left",
    "only_b_left",
    "difference",
    "difference_low",
    "difference_high",
    "difference_confidence",
    "p_value",
    "p_holm",
    "significant",
    "weighted",
]
_PAIR = [name for name in (*IDENTITY, "seed") if name != "protection"]


def comparisons(campaign: Campaign) -> tuple[pd.DataFrame, list[str]]:
    """``compare_protections``, computed when it is first asked for."""
    if "comparisons" not in campaign.memory:
        campaign.memory["comparisons"] = compare_protections(campaign)
    found: tuple[pd.DataFrame, list[str]] = campaign.memory["comparisons"]
    return found


def compare_protections(campaign: Campaign) -> tuple[pd.DataFrame, list[str]]:
    """Every pair of protections of a setting over the failures both have seen.

    Runs are matched by cell (without the protection) and run_id. Returns one row per pair (COLUMNS;
    `difference` is the share of failures detected by A less that by B, with Newcombe's paired
    interval, 95 % after Holm: taken at `difference_confidence`, the level at which Holm's method
    tests this pair; `p_value` exact McNemar, or its counterpart for rows with weights; `p_holm`
    adjusted for the pairs of the setting by Holm's method; `significant` compares p_holm with .05;
    `weighted` whether weights differ), and warnings about cells that were passed over because their
    faults are not the same. Counts are of rows, whatever their weights.
    """
    rows: list[dict] = []
    warnings: list[str] = []
    cells = campaign.cells
    if "correction" in cells:  # other executions, so other failures
        cells = cells[cells["correction"] == ""]
    by_cell = _by_cell(campaign)
    for setting, group in by_group(cells[cells["protection"] != UNPROTECTED], SETTING):
        pairs = []
        for a, b in combinations(sorted(group["protection"].unique()), 2):
            counts = _count_pairs(by_cell, group, a, b, warnings)
            if counts is not None:
                head = {**dict(zip(SETTING, setting, strict=True)), "protection_a": a}
                pairs.append({**head, "protection_b": b, **counts})
        tested = [pair for pair in pairs if not math.isnan(pair["p_value"])]
        if tested:
            values = [pair["p_value"] for pair in tested]
            adjusted = multipletests(values, method="holm")[1]
            for pair, p, share in zip(tested, adjusted, _shares(values, adjusted), strict=True):
                pair.update(p_holm=float(p), significant=bool(p < LEVEL))
                pair.update(_interval(pair["pairs"], 1 - LEVEL / share))
        rows += pairs
    return pd.DataFrame(rows, columns=COLUMNS), warnings


def _shares(values: Sequence[float], adjusted: Sequence[float]) -> list[float]:
    """By how much Holm's method divides the level for each comparison; p_holm = p x that."""
    ranks = {place: rank for rank, place in enumerate(np.argsort(values, kind="stable"))}
    steps = [float(len(values) - ranks[place]) for place in range(len(values))]
    return [
        max(step, holm / p) if p > 0 and holm < 1 else step
        for step, p, holm in zip(steps, values, adjusted, strict=True)
    ]


def _interval(pairs: Mapping[str, Any], confidence: float) -> dict[str, float]:
    low, high = paired_interval(**pairs, confidence=confidence)
    return {"difference_low": low, "difference_high": high, "difference_confidence": confidence}


#: columns of failures; one cell's, by name
_FAILED = ("run_id", "kind", "alarm", "weight", "map")
Failed = Mapping[str, NDArray]


def _by_cell(campaign: Campaign) -> dict[int, Failed]:
    """The failures of every cell, by its row of `Campaign.cells`."""
    failures = campaign.failures
    columns = {name: failures[name].to_numpy() for name in _FAILED}
    places = failures.groupby("cell").indices
    none = np.empty(0, np.int64)
    return {
        cell: {name: values[places.get(cell, none)] for name, values in columns.items()}
        for cell in campaign.cells.index
    }


def _count_pairs(
    by_cell: Mapping[int, Failed], group: pd.DataFrame, a: str, b: str, warnings: list[str]
) -> dict | None:
    """Pair counts of two protections over all cells both have; None when they share none."""
    sides = [group[group["protection"] == name].reset_index(names="row") for name in (a, b)]
    shared = sides[0].merge(sides[1], on=_PAIR, suffixes=("_a", "_b"))
    if shared.empty:
        return None
    unmatched = used = 0
    found: list[tuple[NDArray, ...]] = [(np.empty(0, bool),) * 2 + (np.empty(0), np.empty(0, int))]
    for _, pair in shared.iterrows():
        left, right = (by_cell[pair[f"row_{side}"]] for side in "ab")
        runs, at, to = np.intersect1d(
            left["run_id"], right["run_id"], assume_unique=True, return_indices=True
        )
        alone = len(left["run_id"]) + len(right["run_id"]) - 2 * len(runs)
        finished = all(pair[f"done_{side}"] == pair[f"planned_{side}"] for side in "ab")
        changed = (left["kind"][at] != right["kind"][to]).any()
        if changed or (alone and finished and pair["planned_a"] == pair["planned_b"]):
            warnings.append(
                f"{pair['folder_a']} and {pair['folder_b']} disagree on which runs failed, so "
                "their faults are not the same; they are left out of the comparison"
            )
            continue
        maps = left["map"][at]
        own = np.where(maps >= 0, used * 10**9 + maps, -1)  # maps of one cell are not another's
        found.append((left["alarm"][at], right["alarm"][to], left["weight"][at], own))
        unmatched += alone
        used += 1
    seen_a, seen_b, weight, maps = (np.concatenate(part) for part in zip(*found, strict=True))
    counts = {
        "cells": used,
        "failures": len(weight),
        "unmatched": unmatched,
        "left_a": int((~seen_a).sum()),
        "left_b": int((~seen_b).sum()),
        "only_a_left": int((~seen_a & seen_b).sum()),
        "only_b_left": int((seen_a & ~seen_b).sum()),
        "weighted": bool(len(weight) and (weight != weight[0]).any()),
    }
    if not len(weight):
        missing = COLUMNS[COLUMNS.index("difference") : COLUMNS.index("significant")]
        return {**counts, **dict.fromkeys(missing, math.nan), "significant": False}
    clusters = maps if (maps >= 0).all() else None
    given: dict[str, Any] = {"a": seen_a, "b": seen_b, "weights": weight, "clusters": clusters}
    gap = compare_paired_weighted(**given)
    return {**counts, "pairs": given, "difference": gap.estimate, "p_value": gap.p_value}
