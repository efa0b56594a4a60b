"""Whether two campaigns hold the same rows, bit for bit: python scripts/same_rows.py DIR DIR.

Every cell, every run, every column is compared, so that NaN equals NaN and -0 is not 0. Differences
that are meant are named: ``--allow COLUMN`` for values that may differ, ``--added COLUMN`` for a
column that only the second folder has. A column that is null in every row counts as none. Exit
code 1 at any other difference, which is named.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def rows_of(campaign: Path) -> dict[str, pa.Table]:
    """Every row of each cell, by its folder, in order of runs; each run must be there once."""
    found = {}
    for manifest in sorted(campaign.rglob("manifest.json")):
        folder = manifest.parent
        parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
        if folder.name.startswith("_") or not parts:
            continue
        table = pa.concat_tables(map(held, parts)).sort_by("run_id")
        if table["run_id"].to_pylist() != list(range(len(table))):
            sys.exit(f"{folder}: runs are missing or there twice")
        found[folder.relative_to(campaign).as_posix()] = table
    return found


def held(table: pa.Table) -> pa.Table:
    """The columns that hold a value."""
    names = zip(table.column_names, table.columns, strict=True)
    return table.select([name for name, column in names if column.null_count < len(column)])


def differing(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: rows whose bits differ."""
    a, b = one.to_numpy(), other.to_numpy()
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.ones(max(len(a), len(b)), dtype=bool)
    if a.dtype == object:
        return np.array([repr(x) != repr(y) for x, y in zip(a, b, strict=True)], dtype=bool)
    return (a.view(np.uint8).reshape(len(a), -1) != b.view(np.uint8).reshape(len(b), -1)).any(1)


def differences(one: pa.Table, other: pa.Table, added: set[str]) -> dict[str, str]:
    """By column, in words, how the rows of a cell differ."""
    found = {
        name: "only in the first" for name in one.column_names if name not in other.schema.names
    }
    for name in other.column_names:
        if name not in one.schema.names:
            if name not in added:
                found[name] = "only in the second"
            continue
        if one.schema.field(name).type != other.schema.field(name).type:
            types = one.schema.field(name).type, other.schema.field(name).type
            found[name] = f"{types[0]} and {types[1]}"
            continue
        rows = np.flatnonzero(differing(one[name], other[name]))
        if len(rows):
            values = one[name][int(rows[0])], other[name][int(rows[0])]
            found[name] = (
                f"{len(rows)} of {len(one)} rows, run {rows[0]}: {values[0]} and {values[1]}"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--allow", action="append", default=[], metavar="COLUMN")
    parser.add_argument("--added", action="append", default=[], metavar="COLUMN")
    chosen = parser.parse_args()
    one, other = rows_of(chosen.one), rows_of(chosen.other)
    if one.keys() != other.keys():
        sys.exit(f"other cells: {sorted(one.keys() ^ other.keys())}")
    if not one:
        sys.exit("there are no rows")
    allowed, wrong = set(), []
    for cell in one:
        if len(one[cell]) != len(other[cell]):
            wrong.append(f"{cell}: {len(one[cell])} and {len(other[cell])} runs")
            continue
        for column, how in differences(one[cell], other[cell], set(chosen.added)).items():
            if column in chosen.allow:
                allowed.add(column)
            else:
                wrong.append(f"{cell}: {column}: {how}")
    if wrong:
        sys.exit("rows differ:\n" + "\n".join(wrong))
    rows = sum(map(len, one.values()))
    but = f", but for {', '.join(sorted(allowed))}" if allowed else ""
    print(f"same rows, bit for bit{but}: {rows:,} in {len(one)} cells")


if __name__ == "__main__":
    main()
