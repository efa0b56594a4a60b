"""Shards: whole or absent, never lost, never twice."""

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progip.errors import ProgipError
from progip.storage import store
from progip.storage.manifests import check_same_identity
from progip.storage.mending import mended_shards
from progip.storage.reading import read_shard

Change = Callable[[pa.Table], pa.Table]
SCHEMA = pa.schema([("run_id", pa.int64()), ("x", pa.float32())])


def rows(start: int, stop: int) -> pa.Table:
    ids = range(start, stop)
    return pa.table({"run_id": list(ids), "x": [float(i) for i in ids]}, schema=SCHEMA)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=5),
    st.integers(1, 100),
    st.integers(1, 30),
)
def test_gaps_and_shards_cover_every_run_once(
    wanted: list[tuple[int, int]], runs: int, size: int
) -> None:
    done, end = [], 0
    for start, length in sorted(wanted):
        if start >= end:
            done.append(store.Shard(start, start + length, Path()))
            end = start + length
    missing = list(store.gaps(done, runs, size))
    covered = sorted([i for s in done for i in range(s.start, s.stop)])
    added = [i for start, stop in missing for i in range(start, stop)]
    assert sorted(set(covered) | set(added))[:runs] == list(range(runs))
    assert not set(covered) & set(added)
    assert len(added) == len(set(added))
    assert all(0 < stop - start <= size and stop <= runs for start, stop in missing)


@pytest.mark.parametrize("keep", [0, 4, 100, -5])
def test_a_truncated_shard_is_set_aside_and_its_runs_are_missing(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    for start in (0, 10, 20):
        store.write_shard(tmp_path, start, start + 10, rows(start, start + 10))
    damaged = store.shard_path(tmp_path, 10, 20)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:keep])
    with caplog.at_level(logging.WARNING):
        found = mended_shards(tmp_path, SCHEMA)
    assert [(s.start, s.stop) for s in found] == [(0, 10), (20, 30)]
    assert list(store.gaps(found, 30, 10)) == [(10, 20)]
    assert damaged.name in caplog.text
    assert (tmp_path / f"_aside-{damaged.name}").read_bytes() == content[:keep]
    assert pq.ParquetDataset(tmp_path).read().num_rows == 20


def test_files_that_are_not_what_their_name_says_are_set_aside(tmp_path: Path) -> None:
    pq.write_table(rows(0, 5), tmp_path / "part-other.parquet")
    pq.write_table(rows(0, 5), store.shard_path(tmp_path, 0, 10))  # fewer rows than its name says
    pq.write_table(rows(0, 10), store.shard_path(tmp_path, 10, 20))  # other runs
    store.write_shard(tmp_path, 20, 30, rows(20, 30))
    store.write_shard(tmp_path, 25, 35, rows(25, 35))  # overlaps
    assert [(s.start, s.stop) for s in mended_shards(tmp_path, SCHEMA)] == [(20, 30)]
    assert len(list(tmp_path.glob("_aside-*"))) == 4


def test_order_and_columns_without_a_value_do_not_matter(tmp_path: Path) -> None:
    table = rows(10, 20)
    more = table.append_column("y", pa.nulls(10, pa.int32())).select(["y", "x", "run_id"])
    written = store.write_shard(tmp_path, 10, 20, more)
    assert mended_shards(tmp_path, SCHEMA) == [written]
    assert read_shard(written.path, SCHEMA)[1].equals(table)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.drop(["x"]), "lacks x"),
        (lambda t: t.append_column("y", t["x"]), "has y besides"),
        (lambda t: t.set_column(1, "x", t["x"].cast("float64")), "has x as double, not float"),
        (lambda t: t.append_column("x", t["x"]), "has x twice"),
    ],
)
def test_a_whole_file_with_other_columns_is_refused_and_nothing_renamed(
    tmp_path: Path, change: Change, named: str
) -> None:
    store.shard_path(tmp_path, 0, 10).write_bytes(b"PAR1 torn")
    store.write_shard(tmp_path, 10, 20, change(rows(10, 20)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(store.OtherConfiguration, match=rf"part-0000000010-.*{named}.*name="):
        mended_shards(tmp_path, SCHEMA)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_takes_its_columns_out_of_more(tmp_path: Path) -> None:
    wider = rows(0, 10).append_column("y", rows(0, 10)["x"]).select(["y", "x", "run_id"])
    shard = store.write_shard(tmp_path, 0, 10, wider)
    assert read_shard(shard.path, SCHEMA) == (shard, rows(0, 10))


def test_what_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    store.shard_path(tmp_path, 0, 10).mkdir()
    with pytest.raises(ProgipError, match=r"part-0000000000-.* cannot be read: "):
        mended_shards(tmp_path, SCHEMA)
    assert store.shard_path(tmp_path, 0, 10).is_dir()


def test_no_partial_file_has_a_shards_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write_shard(tmp_path, 0, 10, rows(0, 10))
    assert list(tmp_path.glob("part-*")) == []


def test_another_identity_is_refused_with_the_difference(tmp_path: Path) -> None:
    identity = {"a": {"b": 1, "c": 2}, "seed": 0}
    store.write_json(tmp_path / store.MANIFEST, {"schema_version": 1, "identity": identity})
    check_same_identity(tmp_path, {"a": {"b": 1, "c": 2}, "seed": 0})
    check_same_identity(tmp_path, {"seed": 5})  # where no row is, any will do
    (tmp_path / "part-0000000000-0000000001.parquet").write_bytes(b"")
    with pytest.raises(ProgipError, match=r"a\.b was 1, is now 5; seed was 0, is now 3"):
        check_same_identity(tmp_path, {"a": {"b": 5, "c": 2}, "seed": 3})


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / store.MANIFEST).write_text('{"identity": ')
    with pytest.raises(ProgipError, match=r"manifest\.json is damaged"):
        check_same_identity(tmp_path, {})


def test_rows_without_a_manifest_are_refused(tmp_path: Path) -> None:
    check_same_identity(tmp_path, {})
    store.write_shard(tmp_path, 0, 10, rows(0, 10))
    with pytest.raises(ProgipError, match=r"holds rows but no manifest\.json"):
        check_same_identity(tmp_path, {})
