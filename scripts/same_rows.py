"""Whether two campaigns hold the same rows, bit for bit: python scripts/same_rows.py DIR DIR."""

import sys
from pathlib import Path

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
        table = pa.concat_tables(parts).sort_by("run_id")
        if table["run_id"].to_pylist() != list(range(len(table))):
            sys.exit(f"{folder}: runs are missing or there twice")
        found[folder.relative_to(campaign).as_posix()] = table
    return found


def bits(table: pa.Table) -> list[bytes]:
    """The bits of every column, so that NaN equals NaN and -0 is not 0."""
    columns = [column.to_numpy() for column in table.columns]
    return [repr(c.tolist()).encode() if c.dtype == object else c.tobytes() for c in columns]


def main() -> None:
    one, other = (rows_of(Path(name)) for name in sys.argv[1:3])
    if one.keys() != other.keys():
        sys.exit(f"other cells: {sorted(one.keys() ^ other.keys())}")
    different = [cell for cell in one if bits(one[cell]) != bits(other[cell])]
    if different or not one:
        sys.exit(f"rows differ in {different}" if different else "there are no rows")
    print(f"same rows, bit for bit: {sum(map(len, one.values())):,} in {len(one)} cells")


if __name__ == "__main__":
    main()
