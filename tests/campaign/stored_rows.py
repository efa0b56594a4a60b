"""What a cell holds, for tests."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import schemas


def rows_of(folder: Path) -> pd.DataFrame:
    """Every row of a cell, in order of runs, in the columns that it produces; others are null."""
    return whole_columns(folder).to_pandas()


def whole_columns(folder: Path) -> pa.Table:
    """The same as a table of Arrow."""
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    assert all(part.schema.names[: len(schemas.RESULT)] == schemas.RESULT.names for part in parts)
    table = pa.concat_tables(parts)
    columns = json.loads((folder / "manifest.json").read_text())["columns"]
    produced = [column["name"] for column in columns]
    assert all(table[name].null_count == 0 for name in produced)
    others = [name for name in table.schema.names if name not in produced]
    assert all(table[name].null_count == len(table) for name in others)
    return table.select(produced)
