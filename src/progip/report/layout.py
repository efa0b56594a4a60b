"""Pieces that every table of the report is made of, and how one estimate becomes text."""

import math
from dataclasses import dataclass, field

import pandas as pd

from progip.report import formats
from progip.report.estimates import OF_PROTECTION, UNPROTECTED


@dataclass(frozen=True)
class Block:
    """One printed table with its notes, or only notes when it has no rows."""

    title: str
    headers: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A part of the report: printed blocks, and the numbers behind them for NAME.csv."""

    name: str
    title: str
    blocks: list[Block]
    data: pd.DataFrame


def setting_title(setting: tuple[str, ...]) -> str:
    """Dataset, OOD dataset and fault model in one line."""
    dataset, ood, fault = setting
    return f"{dataset} against {ood}, faults {fault}"


def amount(row: pd.Series, name: str) -> str:
    """A count of a summary row; a dash when no run is done yet, for nothing was counted."""
    return formats.ABSENT if _idle(row) and name != "done" else formats.count(row[name])


def share(row: pd.Series, rate: str, decimals: int = 2) -> str:
    """An estimate in per cent, N/A where it says nothing, a dash where there is no row."""
    if row["protection"] == UNPROTECTED and rate in OF_PROTECTION:
        return formats.NOT_APPLICABLE
    return formats.percent(row[rate], decimals)


def interval(row: pd.Series, rate: str, decimals: int = 2) -> str:
    """The interval of an estimate; empty where the estimate is N/A, a dash without any row."""
    if row["protection"] == UNPROTECTED and rate in OF_PROTECTION:
        return ""
    if math.isnan(row[rate]):
        return formats.ABSENT
    return formats.span(row[f"{rate}_low"], row[f"{rate}_high"], decimals)


def size(row: pd.Series, rate: str) -> str:
    """The denominator of an estimate, in rows."""
    if row["protection"] == UNPROTECTED and rate in OF_PROTECTION:
        return ""
    return formats.ABSENT if _idle(row) else formats.count(row[f"{rate}_n"])


def effective_size(row: pd.Series, rate: str) -> str:
    """The rows of an unweighted sample as precise as an estimate; as `size` where there is none."""
    text = size(row, rate)
    value = row.get(f"{rate}_effective_n", math.nan)
    return text if text in ("", formats.ABSENT) else formats.count(value)


def weighted(frame: pd.DataFrame) -> bool:
    """Whether any row of these summaries carries a weight other than 1."""
    return bool((abs(frame["done_w2"] - frame["done"]) > 1e-9 * frame["done"]).any())


def with_interval(row: pd.Series, rate: str, decimals: int = 1) -> str:
    """Estimate and interval in one cell: 98.7 (98.5–98.9)."""
    text, limits = share(row, rate, decimals), interval(row, rate, decimals)
    return text if limits in ("", formats.ABSENT) else f"{text} ({limits})"


def _idle(row: pd.Series) -> bool:
    return row["done"] == 0
