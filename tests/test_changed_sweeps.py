"""A sweep given again with another option: compared as a whole before its first job starts."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_command_line import call

WORDS = ("-m", "runs=30", "pass=first_forward", "protection=none")


def sweep(tmp_path: Path, *overrides: str) -> tuple[int, str]:
    found = call("run.py", *WORDS, f"outputs={tmp_path}/out", *overrides)
    return found.returncode, found.stderr


def content(tmp_path: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}


def test_a_sweep_with_another_option(tmp_path: Path) -> None:
    campaign = tmp_path / "out/campaign"
    assert sweep(tmp_path) == (0, "")
    group = campaign / "digits_resnet-digits-digits_unseen/odin-single_bit_flip"
    shutil.rmtree(group / "first_forward-ood/none")  # as if stopped before its second cell had rows
    for path in (group / "first_forward-ood/_execution").glob("part-*"):
        path.unlink()
    before = content(tmp_path)
    code, said = sweep(tmp_path, "sampling=stratified")
    assert code == 1
    assert said.startswith("error: nothing was started: 1 of the sweep's 2 cells")
    assert "sampling was uniform, is now stratified (digits" in said
    assert "first_forward-id/none)" in said
    assert "sampling." not in said  # of a component that was replaced, no options are listed
    accepted = f"python run.py {' '.join(WORDS)} outputs={tmp_path}/out"
    assert said.strip().endswith(f"go on with what was accepted: {accepted}")
    assert content(tmp_path) == before
    assert f"  {accepted}\n" in call("-m", "progip", "status", str(campaign)).stdout

    # the cell without rows may take the option, although runs were planned there by another
    assert sweep(tmp_path, "sampling=stratified", "population=ood") == (0, "")
    (shard,) = (group / "first_forward-ood/none").glob("part-*.parquet")
    assert len(pq.read_table(shard)["stratum"].unique()) > 1
    report = call("-m", "progip", "report", str(campaign))
    assert report.returncode == 0
    assert "left out: " in report.stdout
    assert "(uniform and stratified)" in " ".join(report.stdout.split())
    assert "30 of 30 runs done" in report.stdout


def test_more_runs_and_the_same_command_are_accepted(tmp_path: Path) -> None:
    assert sweep(tmp_path) == (0, "")
    assert sweep(tmp_path) == (0, "")
    assert sweep(tmp_path, "runs=40") == (0, "")
    code, said = sweep(tmp_path, "seed=1")
    assert code == 1
    assert (
        "2 of the sweep's 2 cells hold rows of another configuration: seed was 0, is now 1" in said
    )


def test_an_environment_variable_that_is_not_set_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROGIP_DATA", raising=False)
    campaign = ("--config-dir", "campaigns", "--config-name", "sample_resnet20")
    found = call("run.py", *campaign, f"outputs={tmp_path}/out")
    assert found.returncode == 1
    assert found.stderr == (
        "error: nothing was started: model.weights needs the environment variable PROGIP_DATA, "
        "which is not set: PROGIP_DATA, for one, names the folder of images and weights "
        "(docs/data.md)\n"
    )
    assert not (tmp_path / "out").exists()
