"""What a cell holds, for tests."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import schemas


def rows_of(folder: Path) -> pd.DataFrame:
    """Every row of a cell, in order of runs."""
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    assert all(part.schema.names[: len(schemas.RESULT)] == schemas.RESULT.names for part in parts)
    return pa.concat_tables(parts).to_pandas()
