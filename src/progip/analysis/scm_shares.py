"""Safety-critical shares: of the errors without faults, and of those that faults make."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from progip.analysis.campaign import Campaign
from progip.analysis.counting import COLUMNS, valid_rows
from progip.analysis.manifests import CellFolder, correction_of
from progip.statistics import cluster_bootstrap, rate

#: what a share is of: errors of the network itself, and SDCs by the condition of their images
FAULT_FREE = "fault-free"
WITH_FAULTS = "faults in {} images"
NAMES = ("model", "dataset", "fault_model", "fault_pass", "ood_method", "number_format")


def scm_shares(campaign: Campaign) -> pd.DataFrame:
    """SCM shares of every network, fault-free and by condition, unprotected.

    Returns:
        ``network`` (a label), NAMES, ``what``, ``share`` with ``low`` and ``high`` (95 %; bootstrap
        over images where faults are, Wilson's without), ``scm`` and ``n`` (misclassifications or
        SDCs), ``images`` they are of, ``effective_n`` (n by the design effect of the images),
        ``runs`` and ``joint`` (SCMs by runs).
    """
    rows: list[dict[str, Any]] = []
    seen = set()
    for cell in _once(campaign):
        names = dict(zip(NAMES, cell.key(*NAMES), strict=True))
        clean = cell.manifest.get("clean_outcome") or {}
        if clean and tuple(names.values()) not in seen:
            seen.add(tuple(names.values()))
            rows.append({**names, **_fault_free(clean)})
        rows.append({**names, **_with_faults(cell, campaign)})
    found = pd.DataFrame(rows)
    if rows:
        found.insert(0, "network", network_labels(found, NAMES[2:]))
    return found


def network_labels(found: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Each row's model, with those of some columns in which the rows of one dataset differ."""
    more = [n for n in names if (found.groupby("dataset")[n].nunique() > 1).any()]
    return [", ".join(str(row[n]) for n in ("model", *more)) for _, row in found.iterrows()]


def _once(campaign: Campaign) -> Iterator[CellFolder]:
    """The fullest cell of every execution that nothing corrects."""
    best: dict[tuple[str, ...], tuple[int, CellFolder]] = {}
    for position, cell in enumerate(campaign.folders):
        done = int(campaign.cells["done"].iloc[position])
        key = cell.key(*NAMES, "condition")
        if done and not correction_of(cell) and done > best.get(key, (0, cell))[0]:
            best[key] = (done, cell)
    for _, cell in best.values():
        yield cell


def _fault_free(clean: Mapping[str, int]) -> dict[str, Any]:
    n, scm = clean["misclassified"], clean["scm"]
    found = rate(scm, n)
    return {
        "what": FAULT_FREE,
        "share": found.estimate,
        "low": found.low,
        "high": found.high,
        "scm": scm,
        "n": n,
        "images": n,
        "effective_n": float(n),
        "runs": clean["images"],
        "joint": scm / clean["images"],
    }


def _with_faults(cell: CellFolder, campaign: Campaign) -> dict[str, Any]:
    flags = ("sdc", "scm", "sample_index")
    ended = ["roulette"] if (cell.manifest.get("sampling") or {}).get("roulette") else []
    names = tuple(dict.fromkeys((*COLUMNS, *campaign.kinds.flags, *flags, *ended)))
    parts = [
        pd.DataFrame({n: rows[n] for n in (*flags, "weight", *ended)})
        for _, rows in valid_rows(cell, names, [])
    ]
    rows = pd.concat(parts)
    total = float(rows["weight"].sum())
    if ended:  # what an error counts; all other runs are none, ended or not
        rows["weight"] *= rows["roulette"]
    sdc = rows[rows["sdc"]]
    found: dict[str, Any] = {
        "what": WITH_FAULTS.format(str(cell.manifest["cell"].get("condition", "all"))),
        "share": math.nan,
        "low": math.nan,
        "high": math.nan,
        "scm": int(sdc["scm"].sum()),
        "n": len(sdc),
        "images": int(sdc["sample_index"].nunique()),
        "effective_n": float(len(sdc)),
        "runs": len(rows),
        "joint": float((rows["scm"] * rows["weight"]).sum()) / total,
    }
    if found["images"] > 1:
        share = cluster_bootstrap(sdc["scm"], sdc["weight"], sdc["sample_index"])
        effect = 1.0 if math.isnan(share.design_effect) else max(share.design_effect, 1.0)
        found |= {"share": share.estimate, "low": share.low, "high": share.high}
        found["effective_n"] = len(sdc) / effect
    elif found["n"]:
        plain = rate(found["scm"], found["n"])
        found |= {"share": plain.estimate, "low": plain.low, "high": plain.high}
    return found
