"""From counts of cells to rates with intervals: the numbers of every table, unformatted."""

import math
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import product
from operator import add

import numpy as np
import pandas as pd

from progip.analysis.campaign import DETECTOR, SETTING
from progip.analysis.kinds import OOD_VERDICT, Kinds
from progip.analysis.manifests import IDENTITY
from progip.passes import is_pass, place_of
from progip.records import EVERY_PASS, PASSES, POPULATIONS, lacking
from progip.statistics import Moments, Rate, rate, rate_from_sums

ALL = "(all)"
UNPROTECTED = "none"
#: share of non-finite failures above which a cell is NaN-dominant, "N" (ProGIP, results per pass)
NAN_DOMINANT = 0.96

CLEAN_RATES = {f"clean_{population}_alarm_rate": population for population in POPULATIONS}


def of_protection(rate: str) -> bool:
    """Whether a rate says nothing of a system without protection."""
    return rate.endswith(("accuracy", "alarm_rate"))


def summarise(
    cells: pd.DataFrame, by: list[str], method: str = "wilson", kinds: Kinds = OOD_VERDICT
) -> pd.DataFrame:
    """Add up cells and estimate every rate of an outcome and CLEAN_RATES, one row per group.

    Cells count by the runs they have done, so unfinished ones weigh less. Clean images are counted
    once per detector and protection, not once per pass.

    Args:
        cells: rows as in `Campaign.cells`.
        by: the columns that make a group, `protection` among them.
        method: of the intervals, a key of `progip.statistics.METHODS`.
        kinds: of the outcome.

    Returns:
        the group columns, cells, unfinished, planned, the counts, nonfinite_failures, nan_dominant,
        and for each rate its estimate, _low, _high (95 %, fractions of 1), _n, its denominator in
        rows, and _effective_n, the rows of an unweighted sample with the same variance. Rates of a
        protection are NaN for `none`, those without any row have NaN with n = 0.
    """
    frame = _completed(cells)
    names = [f"{kind}{end}" for kind in kinds.masks for end in ("", "_w", "_w2")]
    counted = [name for name in names if name in frame] + ["planned", "nonfinite_failures"]
    groups = frame.groupby(by, sort=False)
    result = groups[counted].sum(min_count=1).reset_index()
    result.insert(len(by), "cells", groups.size().to_numpy())
    unfinished = frame.assign(open=frame["done"] < frame["planned"]).groupby(by, sort=False)["open"]
    result.insert(len(by) + 1, "unfinished", unfinished.sum().to_numpy())
    share = result["nonfinite_failures"] / result["failures"].where(result["failures"] > 0)
    result["nan_dominant"] = (share > NAN_DOMINANT).to_numpy(dtype=bool)
    pooled = [_pooled(part["moments"]) for _, part in groups] if "moments" in frame else []
    for name, (events, base) in kinds.rates.items():
        if name == "failure_rate_before":
            continue
        masks = kinds.masks[events], kinds.masks[base]
        rates: list[Rate | None] = []
        for number, (_, row) in enumerate(result.iterrows()):
            moments = pooled[number] if pooled else None
            if moments is not None and moments.stratified:
                rates.append(moments.rate(*masks, method=method))
            else:
                rates.append(_weighted(row, events, base, method))
        _add(result, name, rates)
    for name, population in CLEAN_RATES.items():
        clean = frame[frame["population"] == population].drop_duplicates([*by, "clean_of"])
        sums = clean.groupby(by)[["clean_alarms", "clean_images"]].sum(min_count=1)
        pairs = [sums.loc[key] if key in sums.index else None for key in _keys(result, by)]
        _add(
            result,
            name,
            [None if p is None else _plain(p.iloc[0], p.iloc[1], method) for p in pairs],
        )
    bare = result["protection"] == UNPROTECTED
    for name in filter(of_protection, (*kinds.rates, *CLEAN_RATES)):
        result.loc[bare, [name, f"{name}_low", f"{name}_high"]] = math.nan
    return _sorted(result, by)


def with_unprotected(cells: pd.DataFrame, kinds: Kinds = OOD_VERDICT) -> pd.DataFrame:
    """The cells, and when none of a setting ran without protection, those derived from the others.

    Failures before protection stand in the rows of every protection, so the fullest protected cell
    of each kind also tells what happens without one.
    """
    bare = set(map(tuple, cells.loc[cells["protection"] == UNPROTECTED, list(SETTING)].to_numpy()))
    rest = cells[[tuple(row) not in bare for row in cells[list(SETTING)].to_numpy()]]
    if "correction" in rest:  # their rows tell what is left, not what was there before
        rest = rest[rest["correction"] == ""]
    if rest.empty:
        return cells
    kind = [name for name in (*IDENTITY, "seed") if name != "protection" and name in rest]
    derived = rest.sort_values("done", ascending=False, kind="stable").drop_duplicates(kind).copy()
    derived["protection"] = UNPROTECTED
    derived["moments"] = [m.merged(kinds.silent) for m in derived["moments"]]
    for name, mask in kinds.masks.items():
        for end, part in (("", "rows"), ("_w", "total"), ("_w2", "squares")):
            sums = [float(getattr(m, part)[mask].sum()) for m in derived["moments"]]
            derived[f"{name}{end}"] = np.array(sums).astype(np.int64) if not end else sums
    if "milestones" in derived:
        derived["milestones"] = derived["milestones"].map(
            lambda milestones: [(rows, m.merged(kinds.silent)) for rows, m in milestones]
        )
    derived["clean_alarms"] = derived["clean_alarms"].where(derived["clean_alarms"].isna(), 0)
    return pd.concat([derived, cells], ignore_index=True)


def missing_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Points of the grid that a setting's cells span where there is no cell; columns IDENTITY.

    Left out are those that cannot be, by what manifests tell (column fits): a pass that the OOD
    method does not have, a protection that looks at what it does not show.
    """
    axes = ["model", "population", "ood_method", "fault_pass", "protection"]
    absent = []
    for setting, group in cells.groupby(list(SETTING), sort=True):
        present = set(map(tuple, group[axes].to_numpy()))
        values = [in_order(axis, group[axis].unique()) for axis in axes]
        can_be = _can_be(group)
        for point in product(*values):
            if point not in present and can_be(*point[2:]):
                absent.append(
                    {
                        **dict(zip(SETTING, setting, strict=True)),
                        **dict(zip(axes, point, strict=True)),
                    }
                )
    return pd.DataFrame(absent, columns=list(IDENTITY))


def _can_be(cells: pd.DataFrame) -> Callable[[str, str, str], bool]:
    """Whether an OOD method, a pass and a protection go together, as far as is known."""
    passes: dict[str, set[str]] = {}
    shown: dict[str, set[str]] = {}
    watches: dict[str, list[str]] = {}
    for _, row in cells.iterrows():
        fits = row.get("fits")
        if isinstance(fits, dict) and fits:
            passes.setdefault(row["ood_method"], set()).update(fits["passes"])
            shown.setdefault(row["ood_method"], set()).update(fits["shown"])
            watches[row["protection"]] = fits["watches"]

    def can_be(method: str, fault_pass: str, protection: str) -> bool:
        if method not in passes:
            return True
        if fault_pass not in (*passes[method], EVERY_PASS):
            return False
        return not lacking(watches.get(protection, ()), shown[method])

    return can_be


def _completed(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with every column that pooling looks at."""
    frame = cells.copy()
    for column in {"nonfinite_failures", "clean_images", "clean_alarms"} - {*frame}:
        frame[column] = math.nan
    for column in {*DETECTOR, "population"} - {*frame}:
        frame[column] = ""
    if "clean_of" not in frame:
        frame["clean_of"] = list(zip(*(frame[c] for c in (*DETECTOR, "population")), strict=True))
    return frame


def pool(cells: pd.DataFrame, **names: str) -> pd.DataFrame:
    """The cells with columns overwritten (usually by ALL), so that a group takes them together."""
    return _completed(cells).assign(**names)


def _pooled(moments: pd.Series) -> Moments:
    return reduce(add, moments)


def _weighted(row: pd.Series, events: str, base: str, method: str) -> Rate | None:
    n = row[base]
    if math.isnan(n) or math.isnan(row[events]):
        return None
    if math.isnan(row[f"{base}_w"]):  # counts from print: no weights
        return rate(int(row[events]), int(n), method=method)
    return rate_from_sums(
        n=int(n),
        events=int(row[events]),
        weight=row[f"{base}_w"],
        weight_squared=row[f"{base}_w2"],
        event_weight=row[f"{events}_w"],
        event_weight_squared=row[f"{events}_w2"],
        method=method,
    )


def _plain(k: float, n: float, method: str) -> Rate | None:
    return None if math.isnan(k) or math.isnan(n) else rate(int(k), int(n), method=method)


def _add(frame: pd.DataFrame, name: str, rates: list[Rate | None]) -> None:
    blank = Rate(0, 0, math.nan, math.nan, math.nan, math.nan)
    known = [r or blank for r in rates]
    frame[name] = [r.estimate for r in known]
    frame[f"{name}_low"] = [r.low for r in known]
    frame[f"{name}_high"] = [r.high for r in known]
    frame[f"{name}_n"] = [math.nan if r is blank else r.n for r in known]
    frame[f"{name}_effective_n"] = [r.effective_n for r in known]


def _keys(frame: pd.DataFrame, by: list[str]) -> list:
    rows = [tuple(row) for row in frame[by].to_numpy()]
    return rows if len(by) > 1 else [row[0] for row in rows]


def _sorted(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows in the order of their group columns, see in_order."""
    ranks = {n: {v: i for i, v in enumerate(in_order(n, frame[n].unique()))} for n in by}
    return frame.sort_values(by, key=lambda c: c.map(ranks[str(c.name)]), ignore_index=True)


def in_order(axis: str, values: Iterable[str]) -> list[str]:
    """Values of an axis as tables list them: passes as executed, `none` first, the rest by name.

    ALL comes first, but last among passes.
    """
    values = list(values)
    passes = tuple(sorted((v for v in {*PASSES, *values} if is_pass(v)), key=place_of))
    known = {"fault_pass": passes, "population": POPULATIONS, "protection": (UNPROTECTED,)}
    first = known.get(axis, ())

    def place(value: str) -> tuple[int, str]:
        if value == ALL:
            return (len(first) + 1 if axis == "fault_pass" else -1, "")
        return (first.index(value) if value in first else len(first), str(value))

    return sorted(values, key=place)
