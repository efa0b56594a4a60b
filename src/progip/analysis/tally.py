"""Result rows counted by what happened to them: sums over the categories of ``kinds``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progip.analysis.kinds import declared_in, kinds_of
from progip.errors import ProgipError
from progip.statistics.clustered_sums import ClusteredSums
from progip.statistics.intervals import effective_size_warning
from progip.statistics.strata import Moments, StratifiedSums
from progip.storage.reading import read_columns

#: later rows that a row of the pilot is worth
PILOT_WORTH = 0.3
ESTIMANDS = ("layer_mean", "neuron_weighted", "mac_weighted")


@dataclass(frozen=True)
class Places:
    """Where some rows lie in a sampling plan.

    Attributes:
        phases: (rows,) bool, those of the pilot and all others.
        stratum: (rows,).
        factor: (rows,) what a row counts within its stratum.
        sizes: number of strata of each phase.
        cluster: (rows,) number of each row's fault map; None where every row has its own.
    """

    phases: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    stratum: NDArray[np.int64]
    factor: NDArray[np.float64]
    sizes: tuple[int, int]
    cluster: NDArray[np.int64] | None = None


class Tally:
    """Sums over the rows of one cell, for any estimand.

    Where runs were ended early (``sampling.roulette``), a run of factor r counts r as what it is
    and 1 - r as the fault-free execution of its image: an ended one, r = 0, as the latter alone,
    one that went on with probability p, r = 1 / p. The expectation is the run's own category,
    whatever the limits were (difference estimator: Sarndal, Swensson, Wretman, Model Assisted
    Survey Sampling, 1992, section 6.3).

    Args:
        manifest: of the cell, or {} for rows without strata whose own estimand is wanted.
        estimand: one of ESTIMANDS; None for that of the fault model (`native_estimand`).

    Raises:
        ProgipError: an unknown estimand, or one for which the manifest tells too little.
    """

    def __init__(self, manifest: Mapping[str, Any], estimand: str | None = None) -> None:
        sampling = manifest.get("sampling") or {}
        strata = sampling.get("strata") or []
        self._pilot_runs = int(sampling.get("pilot_runs") or 0) if strata else 0
        self._defensive = _options(manifest).get("defensive")
        #: the categories of its rows, by the outcome that the manifest names
        self.kinds = kinds_of(declared_in(manifest))
        self._roulette = bool(sampling.get("roulette"))
        self._uniform = sampling.get("name") == "uniform"
        self._factors = _factors(manifest, estimand)
        self._stratified = bool(strata)
        shares = np.array([stratum["share"] for stratum in strata] or [1.0])
        #: of the pilot, which has an allocation of its own, and of all other rows
        #: rows that share a fault map; 0 where every row has faults of its own
        self.rows_per_map = int(manifest.get("runs_per_map") or 0)
        sums = ClusteredSums if self.rows_per_map else StratifiedSums
        self._phases: tuple[StratifiedSums, ...] = tuple(
            sums(
                shares,
                np.array([stratum[name] for stratum in strata] or [1.0]),
                self.kinds.count,
            )
            for name in ("pilot", "allocation")
        )
        self.largest_weight = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `add` needs."""
        names = ["weight", *self.kinds.flags]
        names += ["stratum"] if self._stratified else []
        names += ["run_id"] if self._pilot_runs or self.rows_per_map else []
        names += ["layer", "call"] if self._factors is not None else []
        names += ["roulette", "clean_alarm"] if self._roulette else []
        return tuple(names)

    def add(self, columns: Mapping[str, NDArray]) -> None:
        """Count rows. Raises ProgipError for weights or strata that the plan does not have."""
        weight = columns["weight"]
        if not len(weight):
            return
        self._check(columns)
        self.largest_weight = max(self.largest_weight, float(weight.max()))
        stratum, factor = self._stratum(columns), self._factor(columns)
        kind = self.kinds.categories(columns)
        pilot = self._in_pilot(columns)
        for sums, rows in zip(self._phases, (pilot, ~pilot), strict=True):
            part = stratum[rows], kind[rows], factor[rows]
            if self._roulette:
                clean = self.kinds.clean(kind[rows], columns["clean_alarm"][rows])
                sums.add_divided(*part[:2], clean, columns["roulette"][rows], part[2])
            elif isinstance(sums, ClusteredSums):
                sums.add_clusters(*part, columns["run_id"][rows] // self.rows_per_map)
            else:
                sums.add(*part)

    def moments(self) -> Moments:
        """The moments of the rows counted so far, over the categories.

        The pilot decided how the later rows were allocated, so adding its rows to theirs stratum by
        stratum would bias the rates. It is a sample of its own instead, a row of it being worth
        PILOT_WORTH later ones: about its due where the plan gains much.
        """
        pilot, later = (sums.moments() for sums in self._phases)
        one, other = self._scales()
        return later.scaled(other) + pilot.scaled(one) if one else later

    def warning(self) -> str:
        """What is wrong with the weights of rows, or of fault maps; "" for nothing."""
        moments, base = self.moments(), self.kinds.masks["done"]
        return effective_size_warning(
            sum(sums.units for sums in self._phases),
            float(moments.total[base].sum()),
            float(moments.squares[base].sum()),
            self.largest_weight * max(self.rows_per_map, 1),
            "fault map" if self.rows_per_map else "row",
        )

    def row_weights(self, columns: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """What each of these rows counts in the moments so far; they are among the counted.

        Where runs were ended early, it is what failures count.
        """
        stratum, pilot = self._stratum(columns), self._in_pilot(columns)
        early, late = (factor[stratum] for factor in self.factors())
        result: NDArray[np.float64] = np.where(pilot, early, late)
        result = result * self._factor(columns)
        return result * columns["roulette"] if self._roulette else result

    def places(self, columns: Mapping[str, NDArray]) -> "Places":
        """Where rows lie in the plan: in which phase and stratum, and what they count there."""
        pilot = self._in_pilot(columns)
        early, late = (len(sums.shares) for sums in self._phases)
        where = self._stratum(columns), self._factor(columns)
        maps = columns["run_id"] // self.rows_per_map if self.rows_per_map else None
        return Places((pilot, ~pilot), *where, (early, late), maps)

    def factors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a row of each stratum counts in pilot and rest, before its own factor."""
        one, other = self._scales()
        early, late = (sums.row_factors() for sums in self._phases)
        return one * early, other * late

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The group of strata, large enough for a variance of its own, of each stratum."""
        early, late = (sums.groups() for sums in self._phases)
        return early, late

    def _scales(self) -> tuple[float, float]:
        """What a pilot row and a later row count; all together as many as they are."""
        pilot, later = (sums.size for sums in self._phases)
        if not later or not pilot:
            return float(pilot > 0), 1.0
        scale = (pilot + later) / (PILOT_WORTH * pilot + later)
        return PILOT_WORTH * scale, scale

    def _in_pilot(self, columns: Mapping[str, NDArray]) -> NDArray[np.bool_]:
        if not self._pilot_runs:
            return np.zeros(len(columns["weight"]), dtype=bool)
        early: NDArray[np.bool_] = columns["run_id"] < self._pilot_runs
        return early

    def _stratum(self, columns: Mapping[str, NDArray]) -> NDArray:
        rows = len(columns["weight"])
        return columns["stratum"] if self._stratified else np.zeros(rows, dtype=np.int64)

    def _factor(self, columns: Mapping[str, NDArray]) -> NDArray[np.float64]:
        """What each row counts within its stratum, for the estimand."""
        weight = columns["weight"]
        inside = np.ones(len(weight)) if self._stratified else weight.astype(np.float64)
        if self._factors is None:
            return inside
        pairs = zip(columns["layer"], columns["call"], strict=True)
        try:
            factors = [self._factors[str(name), int(call)] for name, call in pairs]
        except KeyError as error:
            raise ProgipError(f"rows name a layer {error} that the manifest lacks") from error
        return inside * np.array(factors)

    def _check(self, columns: Mapping[str, NDArray]) -> None:
        weight = columns["weight"]
        if not (np.isfinite(weight).all() and (weight > 0).all()):
            raise ProgipError("a weight is not a positive finite number")
        message = "weights do not match the sampling plan of the manifest"
        if self._uniform and (weight != 1).any():
            raise ProgipError(f"{message}: a uniform plan gives every row the weight 1")
        if self._stratified:
            stratum = columns["stratum"]
            strata = len(self._phases[0].shares)
            if stratum.min() < 0 or stratum.max() >= strata:
                raise ProgipError(f"{message}: it has {strata} strata, not {stratum.max()}")
            early, late = (sums.weights[stratum] for sums in self._phases)
            expected = np.where(self._in_pilot(columns), early, late)
            if not np.isclose(weight, expected, rtol=1e-9).all():
                raise ProgipError(f"{message}: a row's weight is not that of its stratum")
        elif self._defensive and weight.max() > (1 + 1e-9) / self._defensive:
            raise ProgipError(f"{message}: none can exceed 1 / {self._defensive}")


def tally_shards(
    paths: Sequence[Path], manifest: Mapping[str, Any], stop: int | None = None
) -> Tally:
    """Count the rows of result shards, those with run_id below ``stop`` only, where given.

    Raises:
        ProgipError: a shard is damaged or lacks a column; it is named.
    """
    tally = Tally(manifest)
    for path in paths:
        names = list(dict.fromkeys([*tally.columns, "run_id"]))
        table = read_columns(path, names)
        columns = {name: table[name].to_numpy() for name in names}
        keep = columns["run_id"] < stop if stop is not None else slice(None)
        tally.add({name: values[keep] for name, values in columns.items()})
    return tally


def native_estimand(manifest: Mapping[str, Any]) -> str:
    """The population a cell's own weights describe: by how its fault model chooses a layer."""
    section = (manifest.get("identity") or {}).get("fault_model") or {}
    return "neuron_weighted" if section.get("weighting") == "neuron" else "layer_mean"


def _options(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return (manifest.get("identity") or {}).get("sampling") or {}


def _factors(
    manifest: Mapping[str, Any], estimand: str | None
) -> dict[tuple[str, int], float] | None:
    """Target over native probability of each layer; None where they are the same."""
    section = (manifest.get("identity") or {}).get("fault_model") or {}
    if estimand is None or estimand == native_estimand(manifest) or "rate" in section:
        return None  # a fault at a rate hits every layer at once
    if estimand not in ESTIMANDS:
        raise ProgipError(f"estimand={estimand!r} is not one of {', '.join(ESTIMANDS)}")
    layers = manifest.get("layers")
    if not layers:
        raise ProgipError(f"the manifest lists no layers, so {estimand} cannot be computed")
    sizes = {
        "layer_mean": np.ones(len(layers)),
        "neuron_weighted": np.array([layer["neurons"] for layer in layers], dtype=float),
        "mac_weighted": np.array([layer["macs"] for layer in layers], dtype=float),
    }
    target, native = sizes[estimand], sizes[native_estimand(manifest)]
    if target.sum() == 0:
        raise ProgipError("no layer of this cell has multiply-accumulates; choose another estimand")
    factor = target / target.sum() / (native / native.sum())
    return {
        (layer["layer"], layer["call"]): float(f) for layer, f in zip(layers, factor, strict=True)
    }
