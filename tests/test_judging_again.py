"""``progip judge`` and ``progip validate``: what is known without executing anything."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_command_line import call

from progip.campaign.runner import run_cell
from progip.cli import parser
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, *overrides: str) -> Path:
    cfg = composed([f"outputs={folder}", "runs=60", "batch_size=16", *overrides], ROOT / "conf")
    return run_cell(cell_settings(cfg), resolved(cfg))


def rows(folder: Path) -> pa.Table:
    parts = [pq.read_table(path) for path in folder.glob("part-*.parquet")]
    return pa.concat_tables(parts).sort_by("run_id")


def command(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    arguments = parser().parse_args(words)
    arguments.action(arguments)
    return capsys.readouterr().out


def test_executed_runs_are_judged_by_another_protection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = tmp_path / "campaign"
    first = run(tmp_path, "protection=none", "shard_size=30")
    expected = run(tmp_path / "elsewhere", "protection=ranger", "protection.margin=0.05")
    wanted = rows(expected)

    def refuse(*_: object) -> None:
        raise AssertionError("executed")

    monkeypatch.setattr("progip.campaign.runner.Execution", refuse)
    words = ("judge", str(campaign), "protection=ranger", "protection.margin=0.05")
    said = command(capsys, *words)
    assert "/ranger: 60 executed runs judged (" in said
    assert "60 executed runs of 1 cells judged by 'ranger'" in said
    assert "no run was executed" in said
    judged = first.parent / "ranger"
    assert len(list(judged.glob("part-*"))) == 2
    assert rows(judged).equals(wanted)
    assert json.loads((judged / "manifest.json").read_text())["cell"]["protection"] == "ranger"
    assert "were judged already" in command(capsys, *words)
    with pytest.raises(ProgipError, match=r"protection\.margin was 0\.05, is now 0\.2"):
        command(capsys, *words[:3], "protection.margin=0.2")
    with pytest.raises(ProgipError, match="'ranger_clip' changes what is executed"):
        command(capsys, *words[:2], "protection=ranger_clip")
    with pytest.raises(ProgipError, match="seed: judging again changes protection and outcome"):
        command(capsys, *words, "seed=1")

    (tmp_path / "mine/protection").mkdir(parents=True)  # one of the user's own
    option = "_target_: progip.protections.ranger.Ranger\nname: mine\nmargin: 0.05\n"
    (tmp_path / "mine/protection/mine.yaml").write_text(option)
    own = (f"hydra.searchpath=[file://{tmp_path}/mine]", "protection=mine")
    assert "judged by 'mine'" in command(capsys, *words[:2], *own)
    assert rows(first.parent / "mine")["alarm"].equals(wanted["alarm"])

    shard = sorted((first.parent / "_execution").glob("part-*"))[1]
    shard.unlink()
    said = command(capsys, "judge", str(campaign), "protection=progip")
    assert "/progip: 30 executed runs judged" in said
    assert "30 more are not executed yet" in said


def test_a_folder_without_executed_runs(tmp_path: Path, capsys) -> None:
    cell = run(tmp_path, "protection=ranger_clip", "executor=reference", "runs=20")
    with pytest.raises(ProgipError, match="holds no executed runs that another protection"):
        command(capsys, "judge", str(tmp_path / "campaign"), "protection=ranger")
    assert cell.exists()


def test_what_a_campaign_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    words = (f"outputs={tmp_path}", "runs=100", "batch_size=16", "pass=first_forward")
    said = command(capsys, "validate", "config", *words, "protection=none,progip")
    assert "4 cells, which share 2 executions; 140 runs to execute" in said
    assert "nothing is missing; nothing was executed" in said
    (line,) = [line for line in said.splitlines() if "/id/odin/" in line]
    assert line.split()[1:5] == ["100", "60", "8", "18,440"]  # as the manifest's layers say
    manifest = json.loads(next(tmp_path.rglob("progip/manifest.json")).read_text())
    assert sum(layer["neurons"] for layer in manifest["layers"]) == 18_440
    assert not list(tmp_path.rglob("first_forward-ood*"))


def test_what_is_missing_is_said_once_with_the_number_of_cells() -> None:
    found = call("-m", "progip", "validate", "config", "model.weights=no.pth")
    assert found.returncode == 1
    assert "error: 6 of 6 cells cannot run:\n  6 cells: " in found.stderr
    assert "no.pth" in found.stderr
    found = call("-m", "progip", "validate", "nothing")
    assert "campaign=nothing: no such file" in found.stderr
