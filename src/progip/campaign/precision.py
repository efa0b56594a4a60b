"""How narrow the interval of a cell's rate is by now, and how many runs are still needed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progip.campaign import store
from progip.campaign.tally import KINDS, RATES, tally_shards
from progip.errors import ProgipError
from progip.statistics.intervals import Rate, effective_size_warning
from progip.statistics.strata import Moments


@dataclass(frozen=True)
class Precision:
    """Where a cell stands.

    Attributes:
        quantity: the rate looked at, of ``progip.campaign.tally.RATES``.
        runs: done so far.
        rate: its estimate with interval, n (denominator, in rows) and effective n.
        half_width: of the interval, a fraction of 1.
        target: half-width to reach; None where none was asked for.
        runs_needed: further runs, if the rate stays as it is; None without a target or an event.
        warning: what is wrong with the weights; empty when nothing is.
    """

    quantity: str
    runs: int
    rate: Rate
    half_width: float
    target: float | None
    runs_needed: int | None
    warning: str


def rate_of(moments: Moments, quantity: str, confidence: float = 0.95) -> Rate:
    """A rate of ``RATES`` from moments. Raises ProgipError for an unknown name."""
    if quantity not in RATES:
        raise ProgipError(f"quantity {quantity!r} is not one of {', '.join(RATES)}")
    events, base = RATES[quantity]
    return moments.rate(KINDS[events], KINDS[base], confidence)


def current_precision(
    folder: Path,
    quantity: str = "failure_rate",
    *,
    margin: float | None = None,
    confidence: float = 0.95,
) -> Precision:
    """The precision of a cell's folder, finished or not; reads the columns it needs and no more.

    margin: absolute half-width to reach; where it is not given, that of the cell's stopping rule if
    it watches this quantity. The runs needed follow from the variance falling as 1 / runs.

    Raises ProgipError for a folder without a cell, an unknown quantity, weights that do not match
    the plan.
    """
    manifest = store.read_json(folder / store.MANIFEST)
    if manifest is None or manifest.get("kind") != "cell":
        raise ProgipError(
            f"{folder} is not the folder of a cell: it has no {store.MANIFEST} of one"
        )
    # reads only: a shard that is being written or damaged is another command's business
    paths = sorted(folder.glob("part-*.parquet"))
    tally = tally_shards(paths, manifest)
    moments = tally.moments()
    rate = rate_of(moments, quantity, confidence)
    half = (rate.high - rate.low) / 2
    runs = int(moments.rows.sum())
    target = margin
    if target is None:
        target = _target(manifest, quantity, rate)
    needed = None
    if target is not None and rate.events and runs:
        needed = max(0, math.ceil(runs * (half / target) ** 2) - runs)
    base = KINDS["done"]
    warning = effective_size_warning(
        runs, float(moments.total[base].sum()), float(moments.squares[base].sum()),
        tally.largest_weight,
    )  # fmt: skip
    return Precision(quantity, runs, rate, half, target, needed, warning)


def _target(manifest: Mapping[str, Any], quantity: str, rate: Rate) -> float | None:
    rule = (manifest.get("config") or {}).get("stopping") or {}
    if rule.get("of") != quantity or not rule.get("margin"):
        return None
    return float(rule["margin"]) * (rate.estimate if rule.get("relative") else 1.0)


def cell_paths(folder: Path, stop: int) -> list[Path]:
    """The cell's whole shards of runs below ``stop``."""
    return [s.path for s in store.named_shards(folder) if s.start < stop]
