"""``python -m progip attack``: on the network that campaigns execute, options that work."""

import json
from pathlib import Path

import numpy as np
import pytest

from progip.cli import parser
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["dataset.calibration=0", "dataset.limit=60", "attack.budget=40"]


def call(*words: str) -> None:
    arguments = parser().parse_args(["attack", *words])
    arguments.action(arguments)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_prints_and_writes_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder/found.json"
    call(*SMALL, "attack=fgsm", "--out", str(out))
    shown = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["clean"]["n"] == 60
    assert found["robust"]["events"] < found["clean"]["events"]
    assert f"{100 * found['robust']['estimate']:.1f} % (" in shown
    assert found["attack"]["budget"] == 40


def test_attacked_images_for_campaigns(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    call(*SMALL, "attack=fgsm", "--out", str(out), "--images", str(tmp_path / "images"))
    counted = json.loads(out.read_text())
    read = [
        "dataset=npz", f"dataset.folder={tmp_path}/images", "dataset.train=train.npz",
        "dataset.classes=8", "dataset.mean=[0.3035]", "dataset.std=[0.3210]",
        "dataset.calibration=0",
    ]  # fmt: skip
    for name, rate in (("clean", "clean"), ("attacked", "robust")):
        again = tmp_path / f"{name}.json"
        words = [f"dataset.test={name}.npz", "attack=fgsm", "attack.budget=0"]
        call(*read, *words, "--out", str(again))
        found = json.loads(again.read_text())["clean"]
        assert found["n"] == 60
        # an image that the network gets wrong may become right under attack
        assert found["events"] == pytest.approx(counted[rate]["events"], abs=2)
    data = {name: np.load(tmp_path / f"images/{name}.npz") for name in ("clean", "attacked")}
    change = data["clean"]["data"].astype(int) - data["attacked"]["data"]
    assert abs(change).max() == 40
    assert (data["clean"]["labels"] == data["attacked"]["labels"]).all()


def test_a_correcting_protection_is_part_of_the_network(tmp_path: Path) -> None:
    # bounds of one image cut into the others: accuracy falls, so they are there
    words = ["protection=ranger_bound", "protection.images=1", "protection.granularity=neuron"]
    call(*SMALL, "attack=fgsm", *words, "--out", str(tmp_path / "bounded.json"))
    found = json.loads((tmp_path / "bounded.json").read_text())
    assert found["protection"]["name"] == "ranger_bound"
    assert found["clean"]["events"] < 60


def test_a_protection_that_only_watches_is_refused() -> None:
    with pytest.raises(ProgipError, match="protection=ranger only watches"):
        call(*SMALL, "protection=ranger")
