"""Pieces that every table of the report is made of, and how one estimate becomes text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from progip.analysis.estimates import UNPROTECTED, of_protection
from progip.analysis.manifests import USUAL
from progip.report import formats

#: the intervals of `Campaign.interval`, in words
INTERVALS = {"wilson": "Wilson's", "clopper_pearson": "Clopper and Pearson's (exact)"}


class Value(str):
    """A printed number that knows where it stands: row and columns of its section's data.

    Attributes:
        row: of the section's data.
        columns: of it.
        hint: what the page says when one points at it.
        shade: how dark the page shows it, 0 to 6; -1 for no colour, FEW for hatched.
    """

    row: int
    columns: tuple[str, ...]
    hint: str = ""
    shade: int = -1

    def __new__(cls, text: str, row: object, *columns: str) -> "Value":
        value = super().__new__(cls, text)
        value.row, value.columns = int(str(row)), columns
        return value


#: the shade of a square of a map that rests on too few runs to say anything
FEW = 99
#: a paragraph: text, or its pieces where some are Values
Note = str | tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One printed table with its notes, or only notes when it has no rows.

    Attributes:
        title: above it.
        headers: of the columns.
        rows: of the table.
        notes: below it.
        rest: further rows, which the page alone shows.
        is_map: whether the page shows it as a map: squares that scroll in both directions.
        mixed: whether each row is a quantity of its own, so that a sorted column says nothing.
    """

    title: str
    headers: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    notes: Sequence[Note] = ()
    rest: Sequence[list[str]] = ()
    is_map: bool = False
    mixed: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: of its CSV file.
        title: above it.
        blocks: what is printed.
        data: the numbers behind the blocks, for NAME.csv.
        source: the Python expression that gives `data`, of a `campaign` and of `tables` or the
            like.
        query: Python over the raw rows of the campaign in `folder` that ends with `counts`, the
            printed counts, where the section prints any.
    """

    name: str
    title: str
    blocks: list[Block]
    data: pd.DataFrame
    source: str = ""
    query: str = ""


def pieces(note: Note) -> tuple[str, ...]:
    """The pieces of a paragraph."""
    return (note,) if isinstance(note, str) else note


def plain(note: Note) -> str:
    """A paragraph as text."""
    return "".join(pieces(note))


def left_out(failing: int, listed: int, things: str, printed: int, name: str) -> str:
    """What a ranked table does not print, in words; `things` is their plural."""
    if not failing:
        return f"None of {listed} {things} has a failure; on the page and in {name}.csv are all."
    if printed == listed:
        return f"{failing} of {listed} {things} with a failure."
    first = f"the first {printed}" if failing > printed else "those"
    return (
        f"{failing} of {listed} {things} with a failure; printed are {first}, on the page and in "
        f"{name}.csv are all."
    )


def setting_title(setting: tuple[str, ...]) -> str:
    """Dataset, OOD dataset, fault model, unusual number format and condition in one line."""
    dataset, ood, fault, number_format, condition = setting
    unusual = "" if number_format == USUAL["number_format"] else f", numbers {number_format}"
    if condition != USUAL["condition"]:
        unusual += f", images {condition}"
    against = "" if ood == "none" else f" against {ood}"
    return f"{dataset}{against}, faults {fault}{unusual}"


def amount(row: pd.Series, name: str) -> str:
    """A count of a summary row; a dash when no run is done yet, for nothing was counted."""
    if _idle(row) and name != "done":
        return formats.ABSENT
    return _value(formats.count(row[name]), row, name)


def share(row: pd.Series, rate: str, decimals: int = 2) -> str:
    """An estimate in per cent, N/A where it says nothing, a dash where there is no row."""
    if row["protection"] == UNPROTECTED and of_protection(rate):
        return formats.NOT_APPLICABLE
    return _value(formats.percent(row[rate], decimals), row, rate)


def interval(row: pd.Series, rate: str, decimals: int = 2) -> str:
    """The interval of an estimate; empty where the estimate is N/A, a dash without any row."""
    if row["protection"] == UNPROTECTED and of_protection(rate):
        return ""
    if math.isnan(row[rate]):
        return formats.ABSENT
    ends = f"{rate}_low", f"{rate}_high"
    return _value(formats.span(row[ends[0]], row[ends[1]], decimals), row, *ends)


def size(row: pd.Series, rate: str) -> str:
    """The denominator of an estimate, in rows."""
    if row["protection"] == UNPROTECTED and of_protection(rate):
        return ""
    if _idle(row):
        return formats.ABSENT
    return _value(formats.count(row[f"{rate}_n"]), row, f"{rate}_n")


def effective_size(row: pd.Series, rate: str) -> str:
    """The rows of an unweighted sample as precise as an estimate; as `size` where there is none."""
    text = size(row, rate)
    if text in ("", formats.ABSENT):
        return text
    name = f"{rate}_effective_n"
    return _value(formats.count(row.get(name, math.nan)), row, name)


def weighted(frame: pd.DataFrame) -> bool:
    """Whether any row of these summaries carries a weight other than 1."""
    return bool((abs(frame["done_w2"] - frame["done"]) > 1e-9 * frame["done"]).any())


def with_interval(row: pd.Series, rate: str, decimals: int = 1) -> str:
    """Estimate and interval in one cell: 98.7 (98.5–98.9)."""
    text, limits = share(row, rate, decimals), interval(row, rate, decimals)
    if limits in ("", formats.ABSENT):
        return text
    return _value(f"{text} ({limits})", row, rate, f"{rate}_low", f"{rate}_high")


def _value(text: str, row: pd.Series, *columns: str) -> str:
    """A number with its place; nothing is known of a dash."""
    return text if text == formats.ABSENT else Value(text, row.name, *columns)


def _idle(row: pd.Series) -> bool:
    return bool(row["done"] == 0)
