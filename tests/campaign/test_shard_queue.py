"""Processes on one cell divide its shards."""

from contextlib import closing
from pathlib import Path

import schemas

from progip.storage.shard_queue import ShardQueue


def work(folder: Path) -> ShardQueue:
    return ShardQueue(folder, schemas.EXECUTION, runs=2000, size=100)


def test_alone_takes_all_that_it_wants(tmp_path: Path) -> None:
    with closing(work(tmp_path).claims(lambda: 12)) as claims:
        assert next(claims) == [(start, start + 100) for start in range(0, 1200, 100)]


def test_shared_takes_half_of_what_is_free(tmp_path: Path) -> None:
    with (
        closing(work(tmp_path).claims(lambda: 12, shared=True)) as first,
        closing(work(tmp_path).claims(lambda: 12)) as second,
        closing(work(tmp_path).claims(lambda: 2)) as third,
    ):
        assert next(first) == [(start, start + 100) for start in range(0, 1000, 100)]
        assert next(second) == [(start, start + 100) for start in range(1000, 1500, 100)]
        assert next(third) == [(1500, 1600), (1600, 1700)]  # no more than it wants


def test_last_shard_is_taken(tmp_path: Path) -> None:
    blocks = []
    for _ in range(20):  # what is let go without being written is free again
        with closing(work(tmp_path).claims(lambda: 100, shared=True)) as claims:
            blocks.append(len(next(claims)))
    assert set(blocks) == {10}
    one = ShardQueue(tmp_path, schemas.EXECUTION, runs=100, size=100)
    with closing(one.claims(lambda: 100, shared=True)) as claims:
        assert next(claims) == [(0, 100)]
