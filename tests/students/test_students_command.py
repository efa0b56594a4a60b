"""``python -m progip students``: trains, cuts out, measures; its files run in campaigns."""

import json
import re
import sys
from pathlib import Path

import pytest

from progip.cli import parser
from progip.errors import ProgipError
from progip.models.dynamic.student import read_architecture

ROOT = Path(__file__).resolve().parents[2]
SPACE = ["base=[1]", "depth=[0,1]", "width=[0.5,1.0]", "expand=[0.5]", "stem=4", "widths=[8]"]
SMALL = [
    "attack=fgsm", "dataset.train_limit=64", "dataset.limit=80", "dataset.calibration=20",
    *(f"students.space.{option}" for option in [*SPACE, "strides=[4]"]),
    "students.teacher.epochs=3", "students.calibration=64",
    "students.stages=[{name: all, epochs: 1, opened: {width: [0.5, 1.0], depth: [0, 1]}}]",
]  # fmt: skip


def call(*words: str) -> None:
    arguments = parser().parse_args(["students", *words])
    arguments.action(arguments)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("students")
    call("train", *SMALL, "--out", str(folder))
    return folder


def test_train_leaves_students(trained: Path) -> None:
    assert {path.stem for path in (trained / "students").iterdir()} == {
        "teacher", "largest", "smallest",
    }  # fmt: skip
    space, architecture = read_architecture(trained / "students/smallest.safetensors")
    assert architecture == space.smallest()


def test_extract_and_attack(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"depth": [1], "width": [0.5, 1.0], "expand": [0.5, 0.5]}
    call("extract", *SMALL, "--out", str(trained), "--student", json.dumps(given), "--name", "mine")
    shown = capsys.readouterr().out
    assert "fgsm, 32/255" in shown
    path = trained / "students/mine.safetensors"
    assert read_architecture(path)[1] == given
    words = ["attack=fgsm", "attack.budget=32", "dataset.limit=80", "dataset.calibration=20"]
    arguments = parser().parse_args(
        ["attack", "model=student", "model.channels=1", f"model.weights={path}", *words]
    )
    arguments.action(arguments)
    rate = re.compile(r"(\d+\.\d)(?: %)? \(([\d.–]+)\)")
    own, of_attack = rate.findall(shown), rate.findall(capsys.readouterr().out)
    assert len(own) == 2
    assert of_attack == own  # as it was measured when it was cut out


def test_what_is_no_student_is_refused(trained: Path) -> None:
    common = ["extract", *SMALL, "--out", str(trained), "--student"]
    with pytest.raises(ProgipError, match="--student largets: give largest"):
        call(*common, "largets")
    with pytest.raises(ProgipError, match="--student: width="):
        call(*common, '{"depth": [1], "width": [0.6, 1.0], "expand": [0.5, 0.5]}')
    with pytest.raises(ProgipError, match="--name NAME"):
        call(*common, '{"depth": [1], "width": [0.5, 1.0], "expand": [0.5, 0.5]}')


def test_what_is_not_installed_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ProgipError, match=r"pip install 'progip\[robust\]'"):
        call("train", *SMALL, "--out", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ProgipError, match=r"pip install 'progip\[search\]'"):
        call("search", *SMALL, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())
