"""Ctrl-C and SIGTERM inside a block: what is executed is stored, the next process takes it up."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torture
from torture import Cell, small_cell

from progip.campaign.block import Block
from progip.campaign.columns import execution_schema
from progip.campaign.interruption import Interruption
from progip.config import entry
from progip.engine.incremental import IncrementalExecutor
from progip.engine.pieces import Piece
from progip.engine.reference import ReferenceExecutor
from progip.report.status import load_status
from progip.storage import partial_runs, store
from progip.storage.partial_runs import PATTERN

WHOLE = "shard_size=200"  # one shard, which no interrupted process makes whole


def slow_pieces(told: Path) -> None:
    """Each piece takes a while longer, and its runs are counted in a file before it is given."""
    for executor in (IncrementalExecutor, ReferenceExecutor):

        def slow(self: Any, plan: pa.Table, right: Any = executor.pieces) -> Iterator[Piece]:
            for positions, columns in right(self, plan):
                time.sleep(0.15)
                with told.open("a") as file:
                    file.write(f"{plan['run_id'].to_numpy()[positions].tolist()}\n")
                yield positions, columns

        executor.pieces = slow  # type: ignore[method-assign,assignment]


def pieces_with_two_signals(told: Path) -> None:
    """Once 40 runs are executed, two signals come before what the first asks for can be done."""
    slow_pieces(told)
    for executor in (IncrementalExecutor, ReferenceExecutor):

        def hit(self: Any, plan: pa.Table, right: Any = executor.pieces) -> Iterator[Piece]:
            for piece in right(self, plan):
                if len(told_runs(told)) >= 40:
                    os.kill(os.getpid(), signal.SIGINT)
                    os.kill(os.getpid(), signal.SIGINT)
                yield piece

        executor.pieces = hit  # type: ignore[method-assign,assignment]


def as_a_command(
    cell: Cell, told: Path, said: Path, pieces: Callable[[Path], None] = slow_pieces
) -> None:
    """What run.py does, without Hydra; stderr goes to a file."""
    descriptor = os.open(said, os.O_CREAT | os.O_WRONLY)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(2, "w")
    entry(lambda: torture.work(cell, partial(pieces, told)))


def told_runs(told: Path) -> list[int]:
    lines = told.read_text().splitlines() if told.exists() else []
    return [int(word) for line in lines for word in line.strip("[]").split(",")]


def interrupted(cell: Cell, folder: Path, number: int) -> tuple[list[int], str]:
    """Signal a process in the midst of its block; returns what it executed, and what it said."""
    told, said = folder / "told", folder / "said"
    process = torture.SERVER.Process(target=as_a_command, args=(cell, told, said))
    process.start()
    while process.is_alive() and len(told_runs(told)) < 40:
        time.sleep(0.01)
    os.kill(process.pid or 0, number)
    process.join(100)
    assert process.exitcode == 128 + number
    return told_runs(told), said.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("executor", ["incremental", "reference"])
def test_what_is_executed_is_stored_and_taken_up(
    tmp_path: Path, executor: str, number: int
) -> None:
    whole = small_cell(tmp_path, "name=whole", WHOLE)
    torture.finish(whole)
    cell = small_cell(tmp_path, WHOLE, f"executor={executor}")
    executed, said = interrupted(cell, tmp_path, number)
    assert "stopping: what is executed is being stored" in said
    assert said.endswith("interrupted; what is stored stays, and the same command goes on\n")
    assert 40 <= len(executed) < 200
    kept = [pq.read_table(path) for path in cell[0].execution_folder.glob(PATTERN)]
    rows = pa.concat_tables(kept)["run_id"].to_pylist()
    assert sorted(rows) == sorted(executed)
    assert torture.held_runs(cell) == 0
    told = load_status(tmp_path / "campaign").text()
    assert f"{len(executed)} more runs are executed and kept" in told
    assert torture.litter(cell) == []

    again = tmp_path / "again"
    again.mkdir()
    process = torture.start(cell, partial(slow_pieces, again / "told"))
    process.join(100)
    assert process.exitcode == 0
    checked = {run for run in range(200) if executor == "incremental" and run % 200 == 0}
    rest = set(told_runs(again / "told"))
    assert rest & set(executed) <= checked  # the share that the reference executes, too
    assert rest | set(executed) == set(range(200))
    assert torture.same_bytes(torture.result(cell), torture.result(whole))
    assert not list(cell[0].execution_folder.glob(PATTERN))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    cell = small_cell(tmp_path, WHOLE)
    told, said = tmp_path / "told", tmp_path / "said"
    args = (cell, told, said, pieces_with_two_signals)
    process = torture.SERVER.Process(target=as_a_command, args=args)
    process.start()
    process.join(100)
    assert process.exitcode == 128 + signal.SIGINT
    assert 40 <= len(told_runs(told)) < 200
    assert "once more, and it is lost" in said.read_text()
    assert not list(cell[0].execution_folder.glob(PATTERN))
    torture.finish(cell)


def test_a_signal_is_noted_and_the_handler_put_back(request: pytest.FixtureRequest) -> None:
    before = signal.default_int_handler  # a process in the background of a script ignores it
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, before)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_launcher_handles_is_left_to_it() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.number is None
            assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rows(tmp_path: Path) -> tuple[pa.Table, pa.Table, pa.Schema]:
    """Plan and executed rows of a cell of 60 runs, in shards of 20."""
    cell = small_cell(tmp_path, "runs=60")
    torture.finish(cell)
    shards = store.named_shards(cell[0].execution_folder)
    executed = pa.concat_tables(pq.read_table(shard.path) for shard in shards)
    schema = execution_schema(cell[0])
    return executed.select(schema.names[:9]), executed, schema


SHARDS = [(0, 20), (20, 40), (40, 60)]


def test_a_block_takes_up_what_is_kept(tmp_path: Path, rows) -> None:
    plan, executed, schema = rows
    order = np.random.default_rng(0).permutation(60)
    partial_runs.write_partial(tmp_path, executed.take(order[:25]))
    partial_runs.write_partial(tmp_path, executed.take(order[20:40]))  # five of them twice
    block = Block(tmp_path, SHARDS[1:], plan.slice(20), schema)
    held = {run for run in order[:40].tolist() if run >= 20}
    assert block.kept == len(held)
    assert block.missing["run_id"].to_pylist() == sorted(set(range(20, 60)) - held)
    block.add(executed.filter(np.isin(np.arange(60), block.missing["run_id"])))
    assert not len(block.missing)
    for (start, stop), (first, end, part) in zip(SHARDS[1:], block.whole(), strict=True):
        assert (first, end) == (start, stop)
        assert part.equals(executed.slice(start, 20))


def test_a_shard_is_given_when_it_is_whole(tmp_path: Path, rows) -> None:
    plan, executed, schema = rows
    block = Block(tmp_path, SHARDS, plan, schema)
    block.add(executed.slice(15, 30))
    assert [shard[:2] for shard in block.whole()] == [(20, 40)]
    block.keep(executed.slice(15, 30))
    (kept,) = tmp_path.glob(PATTERN)
    assert pq.read_table(kept)["run_id"].to_pylist() == [*range(15, 20), *range(40, 45)]
    block.add(executed.slice(0, 15))
    assert [shard[:2] for shard in block.whole()] == [(0, 20)]
    done = [store.Shard(*shard, tmp_path) for shard in SHARDS]
    partial_runs.remove_whole(tmp_path, done[:2])
    assert kept.exists()
    partial_runs.remove_whole(tmp_path, done)
    assert not kept.exists()


def test_kept_runs_that_are_damaged_or_of_other_faults_are_redone(
    tmp_path: Path, rows, caplog: pytest.LogCaptureFixture
) -> None:
    plan, executed, schema = rows
    partial_runs.write_partial(tmp_path, executed)
    (kept,) = tmp_path.glob(PATTERN)
    content = bytearray(kept.read_bytes())
    other = plan.set_column(
        plan.schema.get_field_index("neuron"), "neuron", pa.array([1] * 60, plan["neuron"].type)
    )
    with caplog.at_level(logging.WARNING):
        assert Block(tmp_path, SHARDS, other, schema).kept == 0
        assert "other faults than are planned" in caplog.text
        content[200] ^= 0x10
        kept.write_bytes(content)
        assert len(Block(tmp_path, SHARDS, plan, schema).missing) == 60
    assert "removed, its runs are redone" in caplog.text
    assert not kept.exists()
