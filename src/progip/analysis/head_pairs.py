"""Networks that differ in their head alone, compared: DeltaLoss, Top2Diff, values, bits.

A text-guided head is compared with the plain one (Wasim et al., NeurIPS 2023): by how much a fault
in its own layers, and in any layer, moves the loss.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from progip.analysis.campaign import Campaign
from progip.analysis.manifests import CellFolder, correction_of
from progip.analysis.raw_rows import produced
from progip.analysis.site_sums import TOP2DIFF, about_layers
from progip.storage import store
from progip.storage.reading import read_columns

PLAIN = "linear"
COLUMNS = ["layer", "bit", "value_before", "value_after", "counted", "mismatch", "delta_loss"]
COLUMNS += ["delta_loss_capped"]
#: a magnitude that no flip of a float32 bit but 30 can reach from below
SAFE = 2.0
_NORMAL = stats.norm.ppf(0.975)


@dataclass(frozen=True)
class Head:
    """One of the two cells of a pair.

    Attributes:
        name: of the head; model: of the network; text: whether it is not the plain one.
        layers: one row per layer, in network order: neurons, macs, n (counted runs), nonfinite,
            delta_loss and delta_loss_capped with their variances of the mean, mismatch, and of
            the clean values that were hit mean and largest magnitude.
        bits: one row per group of bits (``30``, ``others``): flips of |v| < 2, those that leave it.
        clean: golden rows of the evaluation images, by sample_index.
    """

    name: str
    model: str
    layers: pd.DataFrame
    bits: pd.DataFrame
    clean: pd.DataFrame


@dataclass(frozen=True)
class HeadPair:
    """A plain head and another on the same backbone, data and faults.

    Attributes:
        setting: dataset, protection and pass.
        own: names of the layers of each head, plain and other.
    """

    setting: dict[str, str]
    plain: Head
    other: Head

    @property
    def own(self) -> tuple[list[str], list[str]]:
        """The layers that only one of the two has: its head."""
        ours, theirs = list(self.other.layers.index), list(self.plain.layers.index)
        return [n for n in theirs if n not in ours], [n for n in ours if n not in theirs]


@dataclass(frozen=True)
class Quotient:
    """Plain over other: above 1 the other head is better. Interval: delta method on the log."""

    plain: float
    other: float
    estimate: float
    low: float
    high: float


def head_pairs(campaign: Campaign) -> list[HeadPair]:
    """Every pair of cells that differ in the head alone, one of them the plain one."""
    groups: dict[Any, dict[str, CellFolder]] = {}
    for cell in campaign.folders:
        model = dict((cell.manifest.get("identity") or {}).get("model") or {})
        head = model.pop("head", None)
        if head is None or "delta_loss" not in produced(cell):
            continue
        model.pop("name")
        names = ("dataset", "condition", "fault_model", "fault_pass", "number_format", "protection")
        key = (*cell.key(*names), json.dumps(model, sort_keys=True))
        form = head["name"] + (f" {head['mode']}" if head.get("mode", "split") != "split" else "")
        groups.setdefault(key, {})[form] = cell
    found = []
    for key, cells in groups.items():
        if PLAIN not in cells:
            continue
        setting = {"dataset": key[0], "protection": key[5], "pass": key[3]}
        plain = _head(PLAIN, cells[PLAIN])
        pairs = [
            HeadPair(setting, plain, _head(name, cell))
            for name, cell in cells.items()
            if name != PLAIN
        ]
        found += [pair for pair in pairs if len(pair.plain.layers) and len(pair.other.layers)]
    return found


def last_layer(pair: HeadPair, measure: str, weighting: str) -> Quotient:
    """DeltaLoss in the plain head's layer over the mean of the other head's layers.

    Args:
        weighting: of these layers: ``neurons`` (faults are uniform over neurons) or ``macs``.
    """
    plain, other = pair.own
    return _quotient(
        _mean(pair.plain.layers.loc[plain], measure, weighting),
        _mean(pair.other.layers.loc[other], measure, weighting),
    )


def overall(pair: HeadPair, measure: str) -> Quotient:
    """The plain mean over all layers, as the source has it, of one over the other."""
    return _quotient(_mean(pair.plain.layers, measure), _mean(pair.other.layers, measure))


def top2diff_gain(pair: HeadPair) -> dict[str, float]:
    """Mean Top2Diff of the right images of each; the gain in points over images both get right.

    ``crossing`` is the smallest demanded Top2Diff from which on the other head is the better one up
    to 40 points; NaN where there is none.
    """
    both = pair.plain.clean.join(pair.other.clean, suffixes=("_plain", "_other"), how="inner")
    right = {h: both[f"class_{h}"] == both[f"label_{h}"] for h in ("plain", "other")}
    means = {h: float(both.loc[right[h], f"top2diff_{h}"].mean()) for h in right}
    shared = both[right["plain"] & right["other"]]
    gain = shared["top2diff_other"] - shared["top2diff_plain"]
    n = len(gain)
    half = float(stats.t.ppf(0.975, n - 1) * gain.std() / math.sqrt(n)) if n > 1 else math.nan
    curves = {
        h: np.array([(right[h] & (both[f"top2diff_{h}"] >= d)).sum() for d in TOP2DIFF])
        for h in right
    }
    ahead = curves["other"] > curves["plain"]
    behind = np.flatnonzero(~ahead)
    first = 0 if not len(behind) else int(behind[-1]) + 1
    return {
        "images": len(both),
        "right_plain": int(right["plain"].sum()),
        "right_other": int(right["other"].sum()),
        "top2diff_plain": means["plain"],
        "top2diff_other": means["other"],
        "gain": float(gain.mean()),
        "gain_low": float(gain.mean()) - half,
        "gain_high": float(gain.mean()) + half,
        "gain_images": n,
        "crossing": float(TOP2DIFF[first]) if first < len(TOP2DIFF) else math.nan,
    }


def _mean(layers: pd.DataFrame, measure: str, weighting: str = "") -> tuple[float, float]:
    """The weighted mean over layers, and its variance."""
    w = layers[weighting].to_numpy(float) if weighting else np.ones(len(layers))
    w = w / w.sum()
    variance = float((w**2 * layers[f"{measure}_variance"]).sum())
    return float((w * layers[measure]).sum()), variance


def _quotient(plain: tuple[float, float], other: tuple[float, float]) -> Quotient:
    (a, va), (b, vb) = plain, other
    if not (a > 0 and b > 0):
        return Quotient(a, b, math.nan, math.nan, math.nan)
    factor = math.exp(float(_NORMAL) * math.sqrt(va / a**2 + vb / b**2))
    return Quotient(a, b, a / b, a / b / factor, a / b * factor)


def _head(name: str, cell: CellFolder) -> Head:
    rows = pa.concat_tables([read_columns(path, COLUMNS) for path in cell.shards]).to_pandas()
    size = rows["value_before"].abs()
    # a flip from below 2 that gives no number leaves the range, too
    inside = rows["value_after"].abs() < SAFE
    small = rows.assign(leaves=~inside)[size < SAFE]
    group = np.where(small["bit"] == 30, "30", "others")
    bits = small.groupby(group)["leaves"].agg(["size", "sum"])
    rows = rows.assign(size=size)[rows["counted"]]
    by = rows.groupby("layer", sort=False)
    layers = pd.DataFrame({"n": by.size(), "mismatch": by["mismatch"].mean()})
    finite = rows[np.isfinite(rows["delta_loss"])].groupby("layer", sort=False)
    layers["nonfinite"] = layers["n"] - finite.size().reindex(layers.index, fill_value=0)
    for measure, part in (("delta_loss", finite), ("delta_loss_capped", by)):
        layers[measure] = part[measure].mean()
        layers[f"{measure}_variance"] = part[measure].var() / part.size()
    layers["mean_value"], layers["largest_value"] = by["size"].mean(), by["size"].max()
    about = about_layers(cell.manifest).set_index("layer")[["neurons", "macs"]]
    layers = about.join(layers, how="inner")
    folder = store.execution_folder(cell.path, correction_of(cell) or None)
    golden = pq.read_table(folder / store.CLEAN).to_pandas()
    golden = golden[(golden["split"] == "evaluation") & (golden["population"] == "id")]
    clean = golden.set_index("sample_index")[["class", "label", "top2diff"]]
    return Head(name, cell.manifest["cell"]["model"], layers, bits, clean)
