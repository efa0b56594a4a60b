"""What figures need of the executed runs beyond their counts, streamed once per execution.

All protections of an execution watch the same runs, so only its fullest cell is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from progip.analysis.counting import COLUMNS, valid_rows
from progip.analysis.kinds import declared_in, kinds_of
from progip.analysis.manifests import IDENTITY, CellFolder, correction_of, format_of
from progip.analysis.site_sums import (
    TOP2DIFF,
    about_layers,
    measure_sums,
    measures_of_maps,
    of_maps,
    site_sums,
    swept_rows,
)
from progip.storage import store

#: evidence of a run that a protection may look at; kept of failing runs only
EVIDENCE = ("faulty_grad_max", "range_excess_first", "range_excess_second")
SCORE_BINS = 60
BLOCK_ROWS = 100_000
#: how far score histograms reach beyond clean scores and thresholds, in widths of these
BEYOND = 0.15
_DETECTOR = ("model", "dataset", "ood_dataset", "ood_method", "number_format")


@dataclass(frozen=True)
class ExecutedRuns:
    """The runs of one execution as far as figures need them.

    Attributes:
        names: IDENTITY without the protection, and seed.
        cells: the cells (positions) that watch it.
        sites: one row per (layer, bit): field (of the number format, ``none`` for no bit), rows,
            those that can fail (correct), those of each event of the outcome, failures; and of
            rows that can fail the sums of weights, of their squares, and both over failures
            (weight, squares, failure_weight, failure_squares); of rows that share fault maps
            squares are those of whole maps, with cross and maps (``of_maps``).
        layers: names in network order.
        edges: of the score histograms [SCORE_BINS + 1].
        scores: counts of the runs' faulty scores [SCORE_BINS + 2] (below the first and above the
            last edge, too).
        failing_scores: the same of failures.
        nonfinite: number of scores that are not finite.
        failing_nonfinite: the same of failures.
        about: one row per layer: type, neurons, macs, and super_layer where it was marked.
        layer_means: one row per layer: sums of each measure (``site_sums.measure_sums``).
        sweep: (TOP2DIFF,) runs by what the faulty Top2Diff was where their class is right, and the
            number of runs; None where it was not observed.
        failing: one row per failing run with run_id, sample_index, weight, layer, bit and the
            EVIDENCE columns named as in golden rows.
        clean: `clean.parquet`, or None where the campaign was made before they were kept.
    """

    names: dict[str, Any]
    cells: tuple[int, ...]
    sites: pd.DataFrame
    layers: tuple[str, ...]
    edges: NDArray[np.float64]
    scores: NDArray[np.int64]
    failing_scores: NDArray[np.int64]
    nonfinite: int
    failing_nonfinite: int
    about: pd.DataFrame
    layer_means: pd.DataFrame
    sweep: NDArray[np.int64] | None
    failing: pd.DataFrame
    clean: pd.DataFrame | None


def observe(folders: Sequence[CellFolder]) -> tuple[ExecutedRuns, ...]:
    """Read every execution of a campaign; rows that cannot be read are passed by, as in counts."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, folder in enumerate(folders):
        groups.setdefault(_execution_of(folder), []).append(position)
    clean = {key: _clean(folders[cells[0]]) for key, cells in groups.items()}
    edges = _edges(folders, groups, clean)
    found = []
    for key, cells in groups.items():
        fullest = max(cells, key=lambda cell: sum(_rows(s) for s in folders[cell].shards))
        names = dict(zip((*_KIND, "seed", "correction"), key, strict=True))
        found.append(_observed(folders[fullest], names, tuple(cells), edges[key], clean[key]))
    return tuple(found)


_KIND = tuple(name for name in IDENTITY if name != "protection")


def _execution_of(folder: CellFolder) -> tuple[Any, ...]:
    return (*folder.key(*_KIND), folder.manifest["seed"], correction_of(folder))


def _rows(shard: Any) -> int:
    try:
        return int(pq.read_metadata(shard).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _clean(folder: CellFolder) -> pd.DataFrame | None:
    """The golden rows beside an execution, None where there are none that can be read."""
    path = store.execution_folder(folder.path, correction_of(folder) or None) / store.CLEAN
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException, KeyError):
        return None
    return table.to_pandas()


def _edges(
    folders: Sequence[CellFolder],
    groups: dict[tuple[Any, ...], list[int]],
    clean: dict[tuple[Any, ...], pd.DataFrame | None],
) -> dict[tuple[Any, ...], NDArray[np.float64]]:
    """Edges of score histograms, the same for all executions of a detector."""
    seen: dict[tuple[str, ...], list[float]] = {}
    for key, cells in groups.items():
        values = seen.setdefault(folders[cells[0]].key(*_DETECTOR), [])
        for cell in cells:
            limits = folders[cell].manifest.get("thresholds") or {}
            values += [limits[n] for n in ("ood", "score_low", "score_high") if n in limits]
        table = clean[key]
        if table is not None:
            scores = table.loc[table["split"] == "evaluation", "score"].to_numpy()
            values += list(np.quantile(scores[np.isfinite(scores)], [0, 1]))
    result = {}
    for key, cells in groups.items():
        values = seen[folders[cells[0]].key(*_DETECTOR)] or [0.0]
        low, high = min(values), max(values)
        slack = BEYOND * (high - low) or max(abs(low), 1.0) * BEYOND
        result[key] = np.linspace(low - slack, high + slack, SCORE_BINS + 1)
    return result


def _field(bit: int, folder: CellFolder) -> str:
    fields = format_of(folder.manifest)["fields"]
    return next((f["name"] for f in fields if f["low"] <= bit <= f["high"]), "none")


def _observed(
    folder: CellFolder,
    names: dict[str, Any],
    cells: tuple[int, ...],
    edges: NDArray[np.float64],
    clean: pd.DataFrame | None,
) -> ExecutedRuns:
    kinds = kinds_of(declared_in(folder.manifest))
    measures = kinds.declared.measures
    swept = "faulty_top2diff" in {measure.column for measure in measures}
    more = [name for m in measures for name in (m.column, m.minus, m.base) if name]
    more += ["faulty_class", "label"] if swept else []
    ended = bool((folder.manifest.get("sampling") or {}).get("roulette"))
    more += ["roulette"] if ended else []
    columns = tuple(dict.fromkeys((*COLUMNS, *kinds.flags, "layer", "bit", *_KEPT, *more)))
    sweep = np.zeros(len(TOP2DIFF) + 2, np.int64) if swept else None
    scores, failing_scores = np.zeros((2, SCORE_BINS + 2), np.int64)
    nonfinite = failing_nonfinite = 0
    sites, failing, means = [], [], []
    per_map = folder.manifest.get("runs_per_map")
    for rows in _stream(folder, columns):
        failed = kinds.failed(rows)
        finite = np.isfinite(rows["faulty_score"])
        place = np.searchsorted(edges, rows["faulty_score"], side="right")
        scores += np.bincount(place[finite], minlength=SCORE_BINS + 2)
        failing_scores += np.bincount(place[finite & failed], minlength=SCORE_BINS + 2)
        nonfinite += int((~finite).sum())
        failing_nonfinite += int((~finite & failed).sum())
        maps = {"map": rows["run_id"] // per_map} if per_map else {}
        sites.append(site_sums({**rows, **maps}, kinds))
        means.append(measure_sums({**rows, **maps}, measures))
        if sweep is not None:
            sweep += swept_rows(rows)
        part = pd.DataFrame({name: rows[name][failed] for name in _KEPT})
        if ended:
            part["weight"] *= rows["roulette"][failed]
        failing.append(part)
    types = {**dict.fromkeys(kinds.flags, bool), "bit": np.int8}
    nothing = {name: np.zeros(0, types.get(name, float)) for name in columns}
    sites = sites or [site_sums(nothing, kinds)]
    means = means or [measure_sums(nothing, measures)]
    places = ["layer", "bit"]
    if per_map and "map" in sites[0]:
        frame = of_maps(pd.concat(sites), places)
        by_layer = measures_of_maps(pd.concat(means), measures)
    else:
        frame = pd.concat(sites).groupby(places, sort=False).sum().assign(cross=0.0, maps=0)
        by_layer = pd.concat(means).groupby("layer", sort=False).sum().reset_index()
    kept = pd.concat(failing, ignore_index=True) if failing else pd.DataFrame(columns=_KEPT)
    order = dict.fromkeys(str(layer["layer"]) for layer in folder.manifest.get("layers") or [])
    order |= dict.fromkeys(frame.index.get_level_values("layer"))
    frame = frame.reset_index()
    frame.insert(2, "field", [_field(bit, folder) for bit in frame["bit"]])
    return ExecutedRuns(
        names,
        cells,
        frame,
        tuple(order),
        edges,
        scores,
        failing_scores,
        nonfinite,
        failing_nonfinite,
        about_layers(folder.manifest),
        by_layer,
        sweep,
        kept.rename(columns=lambda name: name.removeprefix("faulty_")),
        clean,
    )


_KEPT = ["run_id", "sample_index", "weight", "layer", "bit"]
_KEPT += ["nonfinite_logits", "nonfinite_gradient", "nonfinite_score"]
_KEPT += ["faulty_score", *EVIDENCE]


def _stream(folder: CellFolder, columns: tuple[str, ...]) -> Iterator[dict[str, NDArray]]:
    """The rows of a cell, some shards at a time, so that small shards cost no more than large."""
    parts: list[dict[str, NDArray]] = []
    for _, rows in valid_rows(folder, columns, []):  # what is left out was said by the counts
        parts.append(rows)
        if sum(len(part["run_id"]) for part in parts) >= BLOCK_ROWS:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
