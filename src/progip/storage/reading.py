"""Reads shards: in whole or by column, changing nothing; what does not fit is refused by name."""

import base64
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from progip import __version__
from progip.errors import ProgipError
from progip.storage import store
from progip.storage.store import OtherConfiguration, Shard


class DamagedShard(ProgipError):
    """A file that is not the shard its name says."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}; the command that made it sets it aside and redoes its runs"
        )
        self.path, self.reason = path, reason


def read_shard(path: Path, schema: pa.Schema, *, exactly: bool = False) -> tuple[Shard, pa.Table]:
    """A whole shard: its runs, and its rows in the columns of ``schema``; it may hold more.

    Args:
        exactly: refuse more columns, too, unless they are null in every row.

    Raises:
        OtherConfiguration: it is whole, but has other columns.
        DamagedShard: it is not what its name says.
        ProgipError: it cannot be read at all.
    """
    try:
        with path.open("rb") as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            other = _other_columns(file.schema_arrow, schema)
            if other and not _footer_agrees(file):
                raise DamagedShard(path, "damaged (its footer contradicts itself)")
            table = file.read()  # all of it: the checksum of every page is compared
            if exactly:
                other += _more_columns(table, schema)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not what is in it
            raise ProgipError(f"{path} cannot be read: {error.strerror}") from error
        raise DamagedShard(path, f"damaged ({error})") from error
    if other:
        raise OtherConfiguration(
            f"{path.parent} holds rows with other columns than progip {__version__} has: "
            f"{path.name} {'; '.join(other)}. {way_out(path.parent)}"
        )
    shard = store.shard_of(path)
    if shard is None:
        raise DamagedShard(path, "not a shard's name")
    start, stop, _ = shard
    if len(table) != stop - start:
        raise DamagedShard(path, f"holds {len(table)} rows, its name says {stop - start}")
    if not np.array_equal(table["run_id"].to_numpy(), np.arange(start, stop)):
        raise DamagedShard(path, f"does not hold the runs {start} to {stop - 1} that its name says")
    return shard, table.select(schema.names)


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Some columns of a shard, whatever else it holds.

    Raises:
        ProgipError: it is damaged or lacks one of them.
    """
    try:
        with pq.ParquetFile(path) as file:
            absent = [name for name in names if name not in file.schema_arrow.names]
            if not absent:
                return file.read(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise ProgipError(f"{path} cannot be read: {error}") from error
    raise OtherConfiguration(f"{path} lacks {', '.join(absent)}. {way_out(path.parent)}")


def _footer_agrees(file: pq.ParquetFile) -> bool:
    """Whether Parquet's columns are those that Arrow noted beside them; no checksum tells."""
    noted = (file.metadata.metadata or {}).get(b"ARROW:schema")
    try:
        return noted is None or file.schema_arrow.equals(
            pa.ipc.read_schema(pa.py_buffer(base64.b64decode(noted)))
        )
    except (ValueError, pa.ArrowException):
        return False


def _more_columns(table: pa.Table, wanted: pa.Schema) -> list[str]:
    """Columns that are not wanted and hold values, each in a few words."""
    return [
        f"has {name} besides"
        for name, column in zip(table.schema.names, table.columns, strict=True)
        if name not in wanted.names and column.null_count < len(column)
    ]


def _other_columns(held: pa.Schema, wanted: pa.Schema) -> list[str]:
    """How columns differ from those wanted, each in a few words."""
    found = [f"lacks {name}" for name in wanted.names if name not in held.names]
    found += [
        f"has {name} as {held.field(name).type}, not {field.type}"
        for name, field in zip(wanted.names, wanted, strict=True)
        if held.names.count(name) == 1 and held.field(name).type != field.type
    ]
    return found + [f"has {name} twice" for name in wanted.names if held.names.count(name) > 1]


def way_out(folder: Path) -> str:
    """What to do about a folder that this program must not write to."""
    manifest = store.read_json(folder / store.MANIFEST) or {}
    made = (manifest.get("versions") or {}).get("progip")
    with_what = f" (progip {made}, commit {manifest.get('commit')})" if made else ""
    return (
        f"Nothing there is touched. Use the progip that wrote it{with_what}, or choose another "
        "campaign name (name=...) or move the folder away"
    )
