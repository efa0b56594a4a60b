"""Failures in time (FIT) and diagnostic coverage, from raw rates per bit and what campaigns saw.

Of the raw failure rate of a layer's bits, raw = rate per bit x bits x residency, a fault-injection
campaign estimates the shares that fail and that fail unnoticed:

    failing = sum over layers of raw x P(failure | fault there)       (single-point, unprotected)
    residual = sum over layers of raw x P(unnoticed failure | fault there)
    safe = raw - failing        (masked faults: in no coverage)
    diagnostic coverage = 1 - residual / failing

in the terms of ISO 26262-5:2018, annex C, where a fault is one flipped bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.estimates import ALL, UNPROTECTED, in_order
from progip.analysis.manifests import CellFolder, correction_of
from progip.analysis.raw_rates import RawRate, RawRates
from progip.analysis.site_counts import Counts, Place, bits_of, count_sites, places_of
from progip.errors import ProgipError
from progip.passes import is_backward
from progip.statistics.limits import (
    upper_limit,
    weighted_coverage_limit,
    weighted_lower_limit,
    weighted_upper_limit,
)

#: what rows of the table are told apart by, beside the protection and the layer
BY = ("model", *SETTING, "ood_method", "fault_pass", "population")


@dataclass(frozen=True)
class Exposed:
    """The bits of one place: how many, how long they are there, and what faults in them did."""

    name: str
    bits: float
    exposure: float
    rate: RawRate
    counts: Counts
    bare: Counts | None

    @property
    def raw(self) -> float:
        """Failures in time of its bits, whatever comes of them."""
        return self.rate.fit_per_bit * self.exposure


def fit_table(
    campaign: Campaign,
    rates: RawRates,
    confidence: float = 0.95,
    warnings: list[str] | None = None,
) -> pd.DataFrame:
    """Failures in time and coverage by layer and of the network (layer ALL).

    Args:
        campaign: of single flipped bits.
        rates: of the user's technology.
        confidence: of each one-sided limit.
        warnings: gets a sentence for rows that are left out.

    Returns:
        BY, protection and layer; bits, exposure (bits x residency), raw (FIT, failures in 10^9
        hours), n (faults that can fail), failures, left; safe, failing and residual (FIT) with
        failing_high and residual_high, upper limits; coverage and metric (1 - residual / raw) with
        coverage_low and metric_low; unseen, the raw FIT of layers that no fault hit, which upper
        limits contain in full. Coverage is NaN without a protection and without a failure.

    Raises:
        ProgipError: a fault model whose faults are not single bits, a target without a raw rate, a
            residency of a layer that there is not.
    """
    groups: dict[tuple[str, ...], dict[str, list[CellFolder]]] = {}
    for folder in campaign.folders:
        if folder.shards:
            found = groups.setdefault(folder.key(*BY), {})
            found.setdefault(folder.key("protection")[0], []).append(folder)
    rates.check_layers({p for f in campaign.folders for p, _ in places_of(f.manifest)})
    said = warnings if warnings is not None else []
    rows = []
    for key, by_protection in groups.items():
        about = dict(zip(BY, key, strict=True))
        watched = {name: cells for name, cells in by_protection.items() if not _corrects(cells)}
        counted = {name: _counts(cells, said) for name, cells in by_protection.items()}
        bare = _bare(counted, watched)
        if bare is not None:
            counted = {UNPROTECTED: bare, **counted}
            counted[UNPROTECTED] = bare
        for name in in_order("protection", counted):
            cells = by_protection.get(name) or next(iter(watched.values()))
            before = bare if name not in watched and name != UNPROTECTED else None
            places = _exposed(cells[0], rates, counted[name], before)
            corrects = name in by_protection and _corrects(by_protection[name])
            for layer, part in [(ALL, places), *_by_layer(places)]:
                head = {**about, "protection": name, "layer": layer}
                rows.append({**head, **_figures(part, name, confidence, corrects)})
    return pd.DataFrame(rows)


def _corrects(cells: Sequence[CellFolder]) -> bool:
    return any(correction_of(cell) for cell in cells)


def _counts(cells: Sequence[CellFolder], warnings: list[str]) -> dict[Place, Counts]:
    found: dict[Place, Counts] = {}
    for cell in cells:
        for place, counts in count_sites(cell, warnings).items():
            found[place] = found.get(place, Counts()) + counts
    return found


def _bare(
    counted: dict[str, dict[Place, Counts]], watched: dict[str, list[CellFolder]]
) -> dict[Place, Counts] | None:
    """What faults do without protection: of its own cell, else of the fullest that watches."""
    if UNPROTECTED not in counted and not watched:
        return None
    fullest = max(watched, key=lambda name: sum(c.n for c in counted[name].values()))
    source = UNPROTECTED if UNPROTECTED in counted else fullest
    return {place: counts.unprotected() for place, counts in counted[source].items()}


def _exposed(
    cell: CellFolder,
    rates: RawRates,
    counts: dict[Place, Counts],
    bare: dict[Place, Counts] | None,
) -> list[Exposed]:
    width = bits_of(cell)
    named = cell.manifest["cell"]
    fault_pass = str(named["fault_pass"])
    usual = "grad_input" if is_backward(fault_pass) else "output"
    found = []
    places = places_of(cell.manifest)
    if not places:
        raise ProgipError(f"{cell.name}: its manifest lists no layers; run it with this version")
    for place, about in places.items():
        target = str(about.get("parameter") or named.get("target") or usual)
        entry = rates.of(target, fault_pass)
        bits = width * float(about["neurons"])
        exposure = bits * entry.residency_of.get(place[0], entry.residency)
        before = bare.get(place, Counts()) if bare is not None else None
        found.append(Exposed(place[0], bits, exposure, entry, counts.get(place, Counts()), before))
    return found


def _by_layer(places: list[Exposed]) -> list[tuple[str, list[Exposed]]]:
    names = dict.fromkeys(place.name for place in places)
    return [(name, [p for p in places if p.name == name]) for name in names]


def _figures(
    places: list[Exposed], protection: str, confidence: float, corrects: bool
) -> dict[str, Any]:
    raw = sum(place.raw for place in places)
    total = reduce(add, (place.counts for place in places))
    seen = [place for place in places if place.counts.n]
    failing, failing_high, _ = _rate(places, confidence, "failure")
    residual, residual_high, _ = _rate(places, confidence, "left")
    if corrects:  # failures before are those of the network without it
        bare = [
            Exposed(p.name, p.bits, p.exposure, p.rate, p.bare or Counts(), None) for p in places
        ]
        failing, failing_high, _ = _rate(bare, confidence, "failure")
        low = _ratio_limit(places, bare, confidence)
    else:
        low = _coverage_limit(seen, confidence)
    known = protection != UNPROTECTED and failing > 0
    return {
        "technology": "; ".join(dict.fromkeys(place.rate.technology for place in places)),
        "bits": sum(place.bits for place in places),
        "exposure": sum(place.exposure for place in places),
        "raw": raw,
        "n": total.n,
        "failures": total.failures,
        "left": total.left,
        "safe": raw - failing,
        "failing": failing,
        "failing_high": failing_high,
        "residual": residual,
        "residual_high": residual_high,
        "coverage": 1 - residual / failing if known else float("nan"),
        "coverage_low": low if known else float("nan"),
        "metric": 1 - residual / raw if raw else float("nan"),
        "metric_low": 1 - residual_high / raw if raw else float("nan"),
        "unseen": sum(place.raw for place in places if not place.counts.n),
    }


def _rate(places: list[Exposed], confidence: float, what: str) -> tuple[float, float, float]:
    """Failures in time of some places, with upper and lower one-sided limits."""
    seen = [place for place in places if place.counts.n and place.raw]
    unseen = sum(place.raw for place in places if not place.counts.n)
    if not seen:
        return (float("nan") if unseen else 0.0), unseen, 0.0
    units = [place.raw / place.counts.weight for place in seen]
    own = f"{what}_weight", f"{what}_squares"
    pairs = list(zip(units, (vars(place.counts) for place in seen), strict=True))
    total = sum(unit * counts[own[0]] for unit, counts in pairs)
    squares = sum(unit**2 * counts[own[1]] for unit, counts in pairs)
    largest = max(unit * counts["largest"] for unit, counts in pairs)
    low = weighted_lower_limit(total, squares, confidence)
    plain = abs(seen[0].counts.weight - seen[0].counts.n * seen[0].counts.largest)
    if len(seen) == 1 and plain < 1e-9 * seen[0].counts.weight:  # equal weights: exact
        counts = seen[0].counts
        k = counts.failures if what == "failure" else counts.left
        high = seen[0].raw * upper_limit(k, counts.n, confidence)
    else:
        high = weighted_upper_limit(total, squares, largest, confidence)
    whole = sum(place.raw for place in seen)
    return total, min(high, whole) + unseen, low


def _coverage_limit(seen: list[Exposed], confidence: float) -> float:
    """Lower limit of 1 - residual / failing, over the failures that were seen."""
    n = noticed = 0
    sums = [0.0] * 4  # weight and squares of the noticed, then of all
    for place in seen:
        c, unit = place.counts, place.raw / place.counts.weight
        n, noticed = n + c.failures, noticed + c.failures - c.left
        sums[0] += unit * (c.failure_weight - c.left_weight)
        sums[1] += unit**2 * (c.failure_squares - c.left_squares)
        sums[2] += unit * c.failure_weight
        sums[3] += unit**2 * c.failure_squares
    if not n or not sums[2]:
        return 0.0
    return weighted_coverage_limit(noticed, n, sums[0], sums[1], sums[2], sums[3], confidence)


def _ratio_limit(places: list[Exposed], bare: list[Exposed], confidence: float) -> float:
    """The same where failures with and without a protection come from separate executions.

    Each side has half of the error (Bonferroni); a coverage below 0 reads 0.
    """
    half = (1 + confidence) / 2
    _, high, _ = _rate(places, half, "left")
    _, _, low = _rate(bare, half, "failure")
    return max(0.0, 1 - high / low) if low else 0.0
