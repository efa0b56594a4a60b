"""How far a campaign is, from nothing but its folder."""

import json
import os
import socket
from pathlib import Path

import pytest
import yaml
from campaign_factory import Write, runs

from progip.errors import ProgipError
from progip.launching.launched import keep_command
from progip.report.status import DONE, FAILED, RUNNING, STOPPED, load_status
from progip.storage import progress


def started_by_hydra(
    campaign: Path, cell: Path, task: list[str], *, sweep: list[str] | None = None
) -> None:
    """The files that Hydra leaves of a sweep and of one of its jobs."""

    def hydra(overrides: list[str]) -> dict:
        return {
            "hydra": {
                "sweeper": {"params": {"population": "id,ood"}},
                "overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": overrides},
                "job": {"config_name": "config"},
                "runtime": {
                    "cwd": "/home/somebody",
                    "config_sources": [{"provider": "main", "path": "/home/somebody/conf"}],
                    "choices": {"pass": "first_forward", "protection": "none"},
                },
            }
        }

    if sweep is not None:
        (campaign / "multirun.yaml").write_text(yaml.safe_dump(hydra(sweep)))
    (cell / ".hydra").mkdir(parents=True, exist_ok=True)
    (cell / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra(task)))
    config = {"population": task[0].partition("=")[2], "runs": 9}
    (cell / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_cell_is_done_or_stopped(write_cell: Write, tmp_path: Path) -> None:
    rows = runs(classification="x.", detection=".", harmless="..x", wrong=".")
    write_cell(rows, population="id")
    write_cell(rows, population="ood", planned=20)
    done, stopped = load_status(tmp_path).cells
    assert (done.state, done.planned, done.done, done.failed) == (DONE, 7, 7, 2)
    assert (stopped.state, stopped.planned, stopped.done) == (STOPPED, 20, 7)
    assert done.rate is not None
    assert (done.rate.events, done.rate.n) == (2, 6)
    assert done.rate.low < 2 / 6 < done.rate.high
    assert "14 of 27 planned runs; 1 done, 1 stopped" in load_status(tmp_path).text()


def test_the_width_and_the_runs_still_needed(write_cell: Write, tmp_path: Path) -> None:
    folder = write_cell(runs(classification="..", harmless="." * 98), planned=200)
    status = load_status(tmp_path)
    assert status.cells[0].precision is None  # no margin was asked for
    rate = status.cells[0].rate
    assert rate is not None
    half = (rate.high - rate.low) / 2
    assert f" {100 * half:.2f} " in status.text().replace("\n", " ")
    assert "asked for" not in status.text()
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())

    def asked(**sections: dict) -> str:
        file.write_text(json.dumps({**manifest, "config": sections}))
        return load_status(tmp_path).text()

    text = asked(stopping={"of": "failure_rate", "margin": half / 2, "confidence": 0.95})
    assert f"± {100 * half:.2f} (n = 100), asked for ± {50 * half:.2f}" in text
    assert "about 300 more runs, 200 beyond those planned" in text
    assert "reached" in asked(stopping={"of": "failure_rate", "margin": 0.1})
    relative = asked(sizing={"margin": 0.5, "relative": True, "confidence": 0.9})
    assert "asked for ± 1.00" in relative  # half of 2 %
    none = asked(stopping={"of": "detection_accuracy", "margin": 0.1})
    assert "no event yet" in none


def test_a_living_process_is_seen_and_a_dead_one_is_not(
    write_cell: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cell(runs(harmless="." * 10), planned=110)
    beat = {"host": "far", "pid": 7, "done": 10, "runs_per_second": 4.0}
    file = folder / f"{progress.PREFIX}far-7"
    file.write_text(json.dumps(beat))
    (cell,) = load_status(tmp_path).cells
    assert (cell.state, cell.speed, cell.seconds_left) == (RUNNING, 4.0, 25.0)
    assert "25 s" in load_status(tmp_path).text()
    os.utime(file, (0, 0))  # silent for long
    assert load_status(tmp_path).cells[0].state == STOPPED
    here = folder / f"{progress.PREFIX}{socket.gethostname()}-{os.getpid()}"
    file.rename(here)  # a process that is there speaks for itself only while its file is fresh
    assert load_status(tmp_path).cells[0].state == STOPPED
    os.utime(here)
    assert load_status(tmp_path).cells[0].state == RUNNING


def test_a_failed_cell_is_shown_and_hides_no_other(write_cell: Write, tmp_path: Path) -> None:
    write_cell(runs(harmless="...."), population="id")
    broken = write_cell(runs(harmless="...."), population="ood")
    (broken / "manifest.json").write_text("{")
    early = tmp_path / "early"
    early.mkdir()
    (early / "error.txt").write_text("Traceback ...\n\nValueError: no such weights\n")
    status = load_status(tmp_path)
    assert sorted(cell.state for cell in status.cells) == [FAILED, FAILED, DONE]
    text = status.text()
    assert "ValueError: no such weights" in text
    assert "early/error.txt" in text
    assert "manifest.json cannot be read" in text


def test_what_finishes_the_rest(write_cell: Write, tmp_path: Path) -> None:
    folder = write_cell(runs(harmless="...."), population="id", planned=9)
    sweep = ["runs=9", "part=1,2", "pass=first_forward,backward"]
    task = ["population=id", "runs=9", "part=1"]
    started_by_hydra(tmp_path, folder, task, sweep=sweep)
    status = load_status(tmp_path)
    assert status.absent == (
        {"population": "id", "pass": "backward"},
        {"population": "ood", "pass": "first_forward"},
        {"population": "ood", "pass": "backward"},
    )
    assert status.commands == ["progip run -m runs=9 part=1,2 pass=first_forward,backward"]
    assert "not started: population=ood pass=backward" in status.text()
    (tmp_path / "multirun.yaml").unlink()  # a cell that no sweep started
    assert load_status(tmp_path).commands == ["progip run population=id runs=9 part=1"]


def test_a_command_that_was_refused_finishes_nothing(write_cell: Write, tmp_path: Path) -> None:
    """Hydra's own files tell of it all the same."""
    folder = write_cell(runs(harmless="...."), population="id", planned=9)
    started_by_hydra(tmp_path, folder, ["population=id"], sweep=["runs=9"])
    keep_command(folder, tmp_path)
    started_by_hydra(tmp_path, folder, ["population=id", "seed=5"], sweep=["runs=9", "seed=5"])
    assert load_status(tmp_path).commands == ["progip run -m runs=9"]
    keep_command(folder, tmp_path)
    assert load_status(tmp_path).commands == ["progip run -m runs=9 seed=5"]


def test_no_campaign_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match="no folder"):
        load_status(tmp_path / "nowhere")
    with pytest.raises(ProgipError, match="holds no cell"):
        load_status(tmp_path)
