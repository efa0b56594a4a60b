"""Whatever ends a campaign, the same command ends with the same rows, each once."""

import errno
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemas
import torture
from torture import Cell, small_cell

from progip.campaign.runner import run_cell
from progip.config import entry
from progip.errors import ProgipError
from progip.storage import store
from progip.storage.crash_log import ERROR, recorded_failure
from progip.storage.mending import mended_shards

CellOf = Callable[..., Cell]
EXECUTORS = ("incremental", "reference")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What both executors must give, however often disturbed: rows of the reference."""
    cell = small_cell(tmp_path_factory.mktemp("undisturbed"))
    torture.finish(cell)
    return torture.result(cell)


def check(cell: Cell, expected: pa.Table) -> None:
    """The same command again, then: the same rows bit for bit, and nothing left behind."""
    torture.finish(cell)
    assert torture.same_bytes(torture.result(cell), expected)
    assert torture.litter(cell) == []
    assert not list(cell[0].execution_folder.glob("_partial-*"))


def kill_often(
    folder: Path, executor: str, kills: int, expected: pa.Table, cell_of: CellOf = small_cell
) -> int:
    """Kill campaigns at random moments, ``kills`` times in all; returns how many tore a file."""
    torn, number, done = 0, 0, 0
    while done < kills:
        cell = cell_of(folder, f"name=killed{number}", f"executor={executor}")
        number += 1
        while done < kills and torture.held_runs(cell) < 180:
            held = torture.held_runs(cell)
            process = torture.start(cell, torture.slow_writes)
            if random.random() < 0.7:  # else while it loads, profiles, traces, plans
                while process.is_alive() and torture.held_runs(cell) == held:
                    time.sleep(0.01)
            if torture.kill(process, random.uniform(0, 0.8)) == -signal.SIGKILL:
                done += 1
                torn += any(p.endswith(".tmp") for p in torture.litter(cell))
        check(cell, expected)
    return torn


@pytest.mark.parametrize("executor", EXECUTORS)
def test_killed_anywhere(tmp_path: Path, executor: str, undisturbed: pa.Table) -> None:
    random.seed(1)
    kill_often(tmp_path, executor, 4, undisturbed)


def weight_cell(folder: Path, *overrides: str) -> Cell:
    """14 fault maps of 15 images: neither shards nor batches end where maps do."""
    maps = ("fault_model=parameter_bit", "pass=all", "fault_model.images_per_map=15")
    return small_cell(folder, *maps, "sizing.maps=14", *overrides)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_campaign_of_faults_in_weights_killed_anywhere(tmp_path: Path, executor: str) -> None:
    random.seed(2)
    whole = weight_cell(tmp_path, "name=whole")
    torture.finish(whole)
    expected = torture.result(whole)
    assert len(expected) == 210
    kill_often(tmp_path, executor, 3, expected, weight_cell)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_killed_anywhere_often(tmp_path: Path, executor: str, undisturbed: pa.Table) -> None:
    torn = kill_often(tmp_path, executor, 30, undisturbed)
    logging.getLogger(__name__).warning("%s: 30 kills, %d while a file was written", executor, torn)
    assert torn >= 4  # otherwise the test no longer hits what it is about


def as_a_command(cell: Cell, said: Path) -> None:
    """What run.py does, without Hydra; stderr goes to a file."""
    with said.open("w") as sys.stderr:
        entry(lambda: torture.work(cell, torture.slow_writes))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_nothing_behind(
    tmp_path: Path, number: int, executor: str, undisturbed: pa.Table
) -> None:
    cell, said = small_cell(tmp_path, f"executor={executor}"), tmp_path / "stderr"
    process = torture.SERVER.Process(target=as_a_command, args=(cell, said))
    process.start()
    while process.is_alive() and torture.held_runs(cell) < 40:
        time.sleep(0.01)
    assert torture.kill(process, 0, number) == 128 + number
    assert 40 <= torture.held_runs(cell) < 200
    assert torture.litter(cell) == []
    assert not (cell[0].folder / ERROR).exists()  # an interruption is no failure
    assert said.read_text().endswith(
        "interrupted; what is stored stays, and the same command goes on\n"
    )
    assert "Traceback" not in said.read_text()
    check(cell, undisturbed)


def file_size_limit() -> None:
    """From now on no file of this process may grow beyond 8 KiB: shards cannot be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))


def test_a_shard_that_cannot_be_written(tmp_path: Path, undisturbed: pa.Table) -> None:
    cell = small_cell(tmp_path)
    process = torture.start(cell, file_size_limit)
    process.join(200)
    assert process.exitcode == 1
    message = recorded_failure(cell[0].folder) or ""
    assert os.strerror(errno.EFBIG) in message
    assert str(cell[0].folder.parent) in message
    assert torture.litter(cell) == []
    check(cell, undisturbed)
    assert recorded_failure(cell[0].folder) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few shards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, undisturbed: pa.Table) -> None:
    cell = small_cell(small_disk)
    process = torture.start(cell)
    process.join(200)
    assert process.exitcode == 1
    assert 0 < torture.held_runs(cell) < 200
    assert torture.litter(cell) == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    check(cell, undisturbed)


@pytest.mark.parametrize(("workers", "executor"), [(2, "incremental"), (4, "reference")])
def test_several_at_once_share_the_shards(
    tmp_path: Path, workers: int, executor: str, undisturbed: pa.Table
) -> None:
    cell = small_cell(tmp_path, f"executor={executor}")
    processes = [torture.start(cell, torture.slow_writes) for _ in range(workers)]
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * workers
    check(cell, undisturbed)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_one_of_two_is_killed_and_the_other_ends_it(
    tmp_path: Path, executor: str, undisturbed: pa.Table
) -> None:
    cell = small_cell(tmp_path, f"executor={executor}")
    one, other = (torture.start(cell, torture.slow_writes) for _ in range(2))
    while torture.held_runs(cell) < 40:
        time.sleep(0.01)
    assert torture.kill(one, 0) == -signal.SIGKILL
    other.join(240)
    assert other.exitcode == 0
    assert torture.same_bytes(torture.result(cell), undisturbed)
    check(cell, undisturbed)


def test_a_shard_cut_or_changed_anywhere(tmp_path: Path, undisturbed: pa.Table) -> None:
    """Every cut is noticed; a changed byte is noticed, or changes nothing that is read."""
    rows = undisturbed.slice(0, 20)
    whole = store.write_shard(tmp_path, 0, 20, rows).path
    content = whole.read_bytes()
    places = sorted({*range(0, len(content), 97), *range(len(content) - 12, len(content)), 1, 4})
    noticed = 0
    for place in places:
        whole.write_bytes(content[:place])
        assert mended_shards(tmp_path, schemas.RESULT) == [], f"cut at byte {place}"
        changed = bytearray(content)
        changed[place] ^= 0x10
        whole.write_bytes(changed)
        found = mended_shards(tmp_path, schemas.RESULT)
        noticed += not found
        if found:
            assert torture.same_bytes(pq.read_table(whole), rows), f"byte {place} changed"
    assert noticed > len(places) / 2


def test_a_cache_that_is_full(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden work that cannot be kept is refused by the cache folder's name, and leaves nothing."""
    monkeypatch.setenv("PROGIP_CACHE", str(small_disk))
    cell = small_cell(tmp_path, "runs=20", "ood_method.epsilon=0.003")
    (small_disk / "filling").write_bytes(bytes(100 << 10))
    with pytest.raises(ProgipError, match=rf"cache folder {small_disk}.*PROGIP_CACHE"):
        run_cell(*cell)
    assert not list((small_disk / "golden").glob(".tmp-*"))
    (small_disk / "filling").unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    (key,) = [path.stem for path in (small_disk / "golden").glob("*.lock")]
    (small_disk / "golden" / f".tmp-{key}-of-a-killed-process").mkdir()
    run_cell(*cell)
    assert not list((small_disk / "golden").glob(".tmp-*"))
