"""How narrow the interval of a cell's rate is by now, and how many runs are still needed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from progip.analysis.kinds import OOD_VERDICT, Kinds, declared_in, kinds_of
from progip.analysis.tally import tally_shards
from progip.errors import ProgipError
from progip.statistics.intervals import Rate
from progip.statistics.strata import Moments
from progip.storage import store
from progip.storage.manifests import read_manifest


@dataclass(frozen=True)
class Precision:
    """Where a cell stands.

    Attributes:
        quantity: the rate looked at, of ``progip.analysis.kinds.Kinds.rates``.
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


def rate_of(
    moments: Moments, quantity: str, confidence: float = 0.95, kinds: Kinds = OOD_VERDICT
) -> Rate:
    """A rate of an outcome from moments. Raises ProgipError for an unknown name."""
    if quantity not in kinds.rates:
        raise ProgipError(f"quantity {quantity!r} is not one of {', '.join(kinds.rates)}")
    events, base = kinds.rates[quantity]
    return moments.rate(kinds.masks[events], kinds.masks[base], confidence)


def current_precision(
    folder: Path,
    quantity: str | None = None,
    *,
    margin: float | None = None,
    confidence: float | None = None,
) -> Precision:
    """The precision of a cell's folder, finished or not; reads the columns it needs and no more.

    Arguments as in `precision_of`. Raises ProgipError for a folder without a cell or of another
    schema version, a shard that cannot be read, an unknown quantity, weights that do not match the
    plan.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("kind") != "cell":
        raise ProgipError(
            f"{folder} is not the folder of a cell: it has no {store.MANIFEST} of one"
        )
    tally = tally_shards(sorted(folder.glob("part-*.parquet")), manifest)
    moments = tally.moments()
    found = precision_of(moments, manifest, quantity, margin=margin, confidence=confidence)
    return replace(found, warning=tally.warning())


def precision_of(
    moments: Moments,
    manifest: Mapping[str, Any],
    quantity: str | None = None,
    *,
    margin: float | None = None,
    confidence: float | None = None,
) -> Precision:
    """Where a cell stands whose rows have these moments.

    The runs needed follow from the variance falling as 1 / runs; looks of a stopping rule ask for a
    little more.

    Args:
        moments: of the cell's rows.
        manifest: of the cell.
        quantity: of `Kinds.rates`; by default what the cell's stopping rule watches, else the
            failure rate.
        margin: absolute half-width to reach.
        confidence: of the interval. Where not given, margin and confidence are those of the cell's
            stopping rule if it watches this quantity, or, for the failure rate, those its size was
            computed from; else no margin, and 95 %.

    Raises:
        ProgipError: an unknown quantity or a confidence outside (0, 1).
    """
    config = manifest.get("config") or {}
    rule, sizing = config.get("stopping") or {}, config.get("sizing") or {}
    quantity = quantity or rule.get("of") or "failure_rate"
    asked = rule if rule.get("of") == quantity else sizing if quantity == "failure_rate" else {}
    if not asked.get("margin"):
        asked = {}
    if confidence is None:
        confidence = float(asked.get("confidence", 0.95))
    rate = rate_of(moments, quantity, confidence, kinds_of(declared_in(manifest)))
    target = margin
    if target is None and asked:
        target = float(asked["margin"]) * (rate.estimate if asked.get("relative") else 1.0)
    half = (rate.high - rate.low) / 2
    runs = int(moments.rows.sum())
    needed = None
    if target and rate.events and runs:
        needed = max(0, math.ceil(runs * (half / target) ** 2) - runs)
    return Precision(quantity, runs, rate, half, target, needed, "")


def cell_paths(folder: Path, stop: int) -> list[Path]:
    """The cell's whole shards of runs below ``stop``."""
    return [s.path for s in store.named_shards(folder) if s.start < stop]
