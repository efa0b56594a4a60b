"""Faults of single bits counted by where they hit: drawn, failing, failing unnoticed."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from progip.analysis.counting import COLUMNS, valid_rows
from progip.analysis.kinds import declared_in, kinds_of
from progip.analysis.manifests import CellFolder, format_of
from progip.errors import ProgipError

#: a layer and which call of it, or which of its parameters
Place = tuple[str, int]


@dataclass(frozen=True)
class Counts:
    """Faults that hit one place: how many, what they weigh, and the same of what came of them.

    Attributes:
        n: faults that can fail.
        weight: sum of their weights.
        largest: the largest of them.
        failures: faults that failed; with failure_weight and failure_squares.
        left: those of them that the protection did not notice; with left_weight and left_squares.
    """

    n: int = 0
    weight: float = 0.0
    largest: float = 0.0
    failures: int = 0
    failure_weight: float = 0.0
    failure_squares: float = 0.0
    left: int = 0
    left_weight: float = 0.0
    left_squares: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        total = Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
        return Counts(**{**vars(total), "largest": max(self.largest, other.largest)})

    def unprotected(self) -> "Counts":
        """The same without the protection: every failure is left."""
        left = {"left": self.failures, "left_weight": self.failure_weight}
        return Counts(**{**vars(self), **left, "left_squares": self.failure_squares})


def bits_of(folder: CellFolder) -> int:
    """How many bits of a value the faults of a cell can hit.

    Raises:
        ProgipError: its faults are not single bits drawn from all values alike.
    """
    code = format_of(folder.manifest)
    fault = (folder.manifest.get("identity") or {}).get("fault_model") or {}
    if "weighting" not in fault or fault.get("name") == "none":
        raise ProgipError(
            f"{folder.name}: fault_model '{folder.manifest['cell']['fault_model']}' does not hit "
            "single bits drawn at random, so a raw rate per bit says nothing of it; failures in "
            "time need single_bit_flip, metadata_bit or parameter_bit"
        )
    if fault.get("bits") is not None:
        return len(fault["bits"])
    chosen = fault.get("fields") or [field["name"] for field in code["fields"]]
    widths = {field["name"]: field["high"] - field["low"] + 1 for field in code["fields"]}
    return sum(widths[name] for name in chosen) if fault.get("fields") else int(code["bits"])


def count_sites(folder: CellFolder, warnings: list[str]) -> dict[Place, Counts]:
    """The faults of a cell by the layer and call that they hit; warnings: gets what is left out.

    A fault of one run is a run that can fail. A fault that stays in memory is a whole fault map: it
    fails where any of its images fails, and is noticed only where every failing image is; maps of
    which images are missing are left out.
    """
    kinds = kinds_of(declared_in(folder.manifest))
    ended = bool((folder.manifest.get("sampling") or {}).get("roulette"))
    more = ("layer", "call", *(["roulette"] if ended else []))
    names = tuple(dict.fromkeys((*COLUMNS, *kinds.flags, *more)))
    per_map = folder.manifest.get("runs_per_map")
    parts = []
    for _, rows in valid_rows(folder, names, warnings):
        failed, base = kinds.failed(rows), kinds.declared.base
        frame = pd.DataFrame({n: rows[n] for n in ("layer", "call", "run_id", "weight")})
        frame["failed"], frame["left"] = failed, failed & ~rows["alarm"]
        frame["counted"] = rows["weight"] * (rows["roulette"] if ended else 1)
        if per_map:
            frame["map"] = frame["run_id"] // per_map
        elif base:
            frame = frame[rows[base]]
        parts.append(frame)
    if not parts:
        return {}
    faults = pd.concat(parts)
    if per_map:
        by = faults.groupby("map", sort=False)
        whole = by.size() == per_map
        firsts = {name: (name, "first") for name in ("layer", "call", "weight", "counted")}
        faults = by.agg(**firsts, failed=("failed", "any"), left=("left", "any"))[whole]
    return {
        (str(layer), int(call)): _counted(part)
        for (layer, call), part in faults.groupby(["layer", "call"], sort=False)
    }


def _counted(part: pd.DataFrame) -> Counts:
    weight, counted = (part[name].to_numpy(np.float64) for name in ("weight", "counted"))
    return Counts(
        len(weight),
        float(weight.sum()),
        float(weight.max()),
        *_sums(part["failed"].to_numpy(bool), counted),
        *_sums(part["left"].to_numpy(bool), counted),
    )


def _sums(flags: NDArray[np.bool_], weight: NDArray[np.float64]) -> tuple[int, float, float]:
    chosen = weight[flags]
    return len(chosen), float(chosen.sum()), float(np.square(chosen).sum())


def places_of(manifest: Mapping[str, Any]) -> dict[Place, dict[str, Any]]:
    """What the manifest says of each place that faults can hit."""
    return {(str(p["layer"]), int(p["call"])): p for p in manifest.get("layers") or []}
