"""The commands as a user types them: what they print, and what they leave, right and wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from progip.models.recipe import has_bfloat16

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ROOT / "src/progip/models/weights/digits_resnet.safetensors"


def call(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120"}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment,
        timeout=240, check=False,
    )  # fmt: skip


def run_py(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return call("run.py", f"outputs={tmp_path}/out", "runs=20", *overrides)


def make_npz(path: Path, count: int = 40, **changes: object) -> Path:
    random = np.random.default_rng(0)
    arrays = {
        "data": random.integers(0, 256, (count, 1, 16, 16), dtype=np.uint8),
        "labels": np.arange(count) % 8,
    }
    np.savez(path, **{**arrays, **changes})  # type: ignore[arg-type]
    return path


def bad_weights(tmp_path: Path) -> str:
    state = load_file(PACKAGED)
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    return f"model.weights={tmp_path}/nan.safetensors"


def foreign_weights(tmp_path: Path) -> str:
    torch.save({"state_dict": {"module.fc.weight": torch.zeros(3, 3)}}, tmp_path / "other.pth")
    return f"model.weights={tmp_path}/other.pth"


def truncated_archive(tmp_path: Path) -> str:
    whole = make_npz(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    return f"dataset=npz dataset.classes=8 dataset.mean=[0.5] dataset.std=[0.5] dataset.train={tmp_path}/half.npz dataset.test={tmp_path}/half.npz"  # noqa: E501


def empty_population(tmp_path: Path) -> str:
    make_npz(tmp_path / "none.npz", 0)
    return f"ood_dataset=npz ood_dataset.test={tmp_path}/none.npz ood_dataset.calibration=0"


def unwritable(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return f"outputs={tmp_path}/file/below"


BAD = [
    ("unknown option", lambda _: "protection=progp", ["protection/progp", "ranger"]),
    ("unknown key", lambda _: "ood_method.temprature=3", ["temprature", "mean temperature"]),
    ("unknown top-level key", lambda _: "run=3", ["'run'", "mean runs"]),
    ("added key", lambda _: "+foo=3", ["foo: no such key"]),
    ("added option", lambda _: "+model.foo=3", ["model.foo: no such option", "weights"]),
    ("wrong type", lambda _: "runs=many", ["runs", "many", "Integer"]),
    ("wrong type below", lambda _: "ood_method.temperature=hot", ["ood_method.temperature", "hot"]),
    ("wrong value", lambda _: "population=both", ["population='both'", "id, ood"]),
    ("NaN in weights", bad_weights, ["conv1.weight", "nan.safetensors"]),
    ("weights of another architecture", foreign_weights, ["other.pth", "fc.weight"]),
    ("missing weights", lambda t: f"model.weights={t}/no.pth", ["no.pth", "model.weights"]),
    ("truncated archive", truncated_archive, ["half.npz"]),
    ("empty population", empty_population, ["none.npz|empty"]),
    ("zero runs", lambda _: "runs=0", ["runs=0"]),
    ("no layer", lambda _: "fault_model.layers=nope", ["layers='nope'", "layer1.0.conv1"]),
    ("unwritable folder", unwritable, ["file/below"]),
    ("no such device", lambda _: "device=cuda:99", ["device=cuda:99", "device=cpu"]),
]


@pytest.mark.parametrize(("make", "named"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_mistake_gives_one_clear_error(tmp_path: Path, make, named: list[str]) -> None:
    found = run_py(tmp_path, *make(tmp_path).split())
    assert found.returncode == 1, found.stderr
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, found.stderr
    assert "Traceback" not in found.stdout + found.stderr
    for word in named:
        assert any(choice in errors[0] for choice in word.split("|")), errors[0]
    assert not list((tmp_path / "out").rglob("part-*"))


def test_a_folder_of_another_config_is_not_touched(tmp_path: Path) -> None:
    assert run_py(tmp_path).returncode == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if "part-" in p.name}
    assert len(before) == 2
    found = run_py(tmp_path, "seed=5")
    assert found.returncode == 1
    assert "seed was 0, is now 5" in found.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if "part-" in p.name} == before
    for path in before:
        path.unlink()
    told = call("-m", "progip", "status", str(tmp_path)).stdout
    assert "outputs=" in told
    assert "seed=5" not in told  # what was refused finishes nothing


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    assert run_py(tmp_path).returncode == 0
    command = [sys.executable, "-m", "progip", "status", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=240)
    assert (process.returncode, said) == (128 + signal.SIGPIPE, b"")


def test_a_sweep_over_protections_passes_and_populations_and_its_report(tmp_path: Path) -> None:
    found = call(
        "run.py", "-m", "protection=progip,ranger", f"outputs={tmp_path}", "runs=10"
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    cells = sorted(tmp_path.glob("campaign/*/*/*/*/manifest.json"))
    assert len([c for c in cells if c.parent.name in ("progip", "ranger")]) == 12
    assert found.stdout.count("runs executed in") == 6
    told = call("-m", "progip", "report", f"{tmp_path}/campaign")
    assert told.returncode == 0, told.stderr
    assert "Overall results" in told.stdout
    assert "12 of 12 cells finished" in told.stdout
    assert (tmp_path / "campaign/report/report.md").exists()
    assert (tmp_path / "campaign/report/overall.csv").exists()
    cell = str(cells[1].parent)
    again = call("-m", "progip", "replay", cell, "3")
    assert again.returncode == 0, again.stderr
    assert "replays exactly" in again.stdout
    assert "there is no run 99" in call("-m", "progip", "replay", cell, "99").stderr


def test_a_failed_cell_does_not_stop_the_sweep(tmp_path: Path) -> None:
    found = call(
        "run.py", "-m", "pass=backward", "population=id", "protection=progip,ranger",
        "protection.margin=-1", "++protection.gradient_margin=-1", f"outputs={tmp_path}", "runs=10",
    )  # fmt: skip
    assert found.returncode == 1
    one_wrong = call(
        "run.py", "-m", "pass=backward", "population=wrong,id", f"outputs={tmp_path}", "runs=10"
    )
    assert one_wrong.returncode == 1
    assert "population='wrong'" in one_wrong.stderr + one_wrong.stdout
    assert len(list(tmp_path.glob("campaign/*/*/backward-id/progip/part-*"))) == 1


def test_reports_on_nothing_say_so(tmp_path: Path) -> None:
    found = call("-m", "progip", "report", str(tmp_path / "nowhere"))
    assert found.returncode == 1
    assert "nowhere" in found.stderr
    found = call("-m", "progip", "replay", str(tmp_path), "3")
    assert found.returncode == 1
    assert "manifest.json" in found.stderr


def test_demo_network_can_be_trained_again(tmp_path: Path) -> None:
    """One epoch of the documented command; its full length gives the packaged file."""
    output = tmp_path / "weights.safetensors"
    command = ["-m", "progip", "train", "model=digits_resnet", "model.recipe.epochs=1"]
    found = call(*command, "--output", str(output))
    assert found.returncode == 0, found.stderr
    assert output.exists()
    assert "sha256" in found.stdout
    assert (
        call("run.py", f"outputs={tmp_path}", "runs=5", f"model.weights={output}").returncode == 0
    )


def test_training_by_the_fast_recipe(tmp_path: Path) -> None:
    output = tmp_path / "weights.safetensors"
    command = ["-m", "progip", "train", "recipe=fast", "threads=1", "model.recipe.epochs=3"]
    found = call(*command, "model.recipe.scale_milestones=[1,2]", "--output", str(output))
    assert found.returncode == 0, found.stderr
    assert [line.split(":")[0] for line in found.stderr.splitlines() if "epoch" in line] == [
        "epoch 1 of 3, 8 x 8 pixels",
        "epoch 2 of 3, 12 x 12 pixels",
        "epoch 3 of 3, 16 x 16 pixels",
    ]
    with safe_open(output, framework="pt") as content:
        recipe = json.loads(content.metadata()["progip"])["recipe"]
    assert recipe["schedule"] == "one_cycle"
    # the default, float32, is left out of the record
    here = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"
    assert recipe.get("precision", "float32") == here
    assert recipe["flip"] is False  # the model's own: a mirrored digit is another sign
    too_few = call(*command, "--output", str(output))
    assert too_few.returncode == 1
    assert "recipe.scale_milestones must be" in too_few.stderr
    unknown = call("-m", "progip", "train", "recipe=quick", "--output", str(output))
    assert unknown.returncode == 1
    assert "fast finetune" in unknown.stderr
