"""The stored rows of cells as one table, whatever each cell produces."""

from collections.abc import Iterable, Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from progip import records
from progip.analysis.manifests import CellFolder
from progip.errors import ProgipError

#: of columns that some cell does not produce, so that whole numbers and flags stay what they are
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
}


def raw_rows(cells: Iterable[CellFolder], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of some cells, in order of cells and runs.

    Args:
        columns: which; None for every column that one of the cells produces.

    Returns:
        One row a run. Where a cell does not produce a column its rows are empty there: ``pd.NA``
        for whole numbers and flags, NaN for other numbers, None for text.

    Raises:
        ProgipError: no cell produces a column that is named, or a file cannot be read.
    """
    cells = list(cells)
    held = dict.fromkeys(name for cell in cells for name in produced(cell))
    wanted = list(held if columns is None else columns)
    if absent := [name for name in wanted if name not in held]:
        raise ProgipError(
            f"no cell produces the column {', '.join(absent)}; there are: {', '.join(held)}"
        )
    parts = [_part(cell, wanted) for cell in cells if cell.shards]
    if not parts:
        return pd.DataFrame(columns=wanted)
    table = pa.concat_tables(parts, promote_options="default")
    return pd.DataFrame({name: _series(table[name]) for name in wanted})


def produced(cell: CellFolder) -> dict[str, None]:
    """The columns of a cell, as its manifest or, in folders of before 0.1, its first file has."""
    named = [column["name"] for column in cell.manifest.get("columns") or []]
    if not named and cell.shards:
        named = pq.read_schema(cell.shards[0]).names
    return dict.fromkeys([*records.CELL.names, *named])


def _part(cell: CellFolder, wanted: Sequence[str]) -> pa.Table:
    own = produced(cell)
    parts = []
    for path in cell.shards:
        try:
            with pq.ParquetFile(path) as file:
                names = [name for name in wanted if name in own]
                here = [name for name in names if name in file.schema_arrow.names]
                table = file.read(columns=list(dict.fromkeys([*here, "run_id"])))
        except (OSError, pa.ArrowException) as error:
            raise ProgipError(
                f"{path} cannot be read ({error}); the command that made it redoes its runs"
            ) from error
        for name in [name for name in names if name not in here]:  # of older files, the cell's own
            told = cell.manifest["cell"].get(name)
            table = table.append_column(name, pa.array([told] * len(table), pa.string()))
        parts.append(table)
    return pa.concat_tables(parts)


def _series(column: pa.ChunkedArray) -> pd.Series:
    if column.null_count:
        return column.to_pandas(types_mapper=_NULLABLE.get)
    return column.to_pandas()
