"""`python -m progip runtime`: a small measurement of the demo network, from start to files."""

import json
import os
from pathlib import Path

import pytest

from progip.cli import parser
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parent.parent.parent


def command(*words: str) -> None:
    arguments = parser().parse_args(["runtime", *words])
    arguments.action(arguments)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_measures_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    command(
        "--methods", "odin", "--batches", "1", "--seconds", "0", "--repetitions", "10",
        "--protections", "progip_both", "ranger", "--campaign", "demo", "--out", str(tmp_path),
        "batch_size=16",
    )  # fmt: skip
    (file,) = (tmp_path / "runtime").glob("*.json")
    assert file.name == "digits_resnet-digits-digits_unseen-odin-batch1-cpu.json"
    measured = json.loads(file.read_text())
    variants = {(v["protection"], v["range_checks"]): v for v in measured["variants"]}
    assert set(variants) == {
        ("none", ""), ("progip_both", ""), ("ranger", "fused"), ("ranger", "per_layer"),
    }  # fmt: skip
    for variant in variants.values():
        for clock in ("wall", "processor"):
            assert len(variant[clock]) == 10
            assert all(0 < t < 1e7 for pair in variant[clock] for t in pair)
    assert str(ROOT) not in file.read_text()
    assert str(Path.home()) not in file.read_text()
    assert measured["threads"] == 1
    assert "digits_resnet, odin" in capsys.readouterr().out
    assert {f.name for f in (tmp_path / "runtime").iterdir()} == {
        file.name, "runtime.md", "runtime.csv",
    }  # fmt: skip
    assert allowed is None or os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batches", "0"], "a batch of 0 images"),
        (["--repetitions", "3"], "repetitions=3 must be at least 10"),
        (["--threads", "0"], "threads=0: must be at least 1"),
        (["--campaign", "overal"], "campaign=overal: no such file. Did you mean overall"),
        (["--protections", "progip", "runs=3"], "'runs=3' is no name; give overrides before"),
    ],
)
def test_wrong_options(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match=message):
        command(*words, "--methods", "odin", "--out", str(tmp_path), "batch_size=16")


QUICK = ["--batches", "1", "--seconds", "0", "--repetitions", "10", "--campaign", "demo"]
SMALL = ["batch_size=16", "dataset.limit=330", "dataset.calibration=60", "dataset.train_limit=100"]


def timed(out: Path, *words: str) -> set[tuple[str, str]]:
    command(*SMALL, *words, *QUICK, "--out", str(out))
    (file,) = (out / "runtime").glob("*.json")
    measured = json.loads(file.read_text())["variants"]
    assert all(len(variant["wall"]) == 10 for variant in measured)
    return {(variant["protection"], variant["range_checks"]) for variant in measured}


@pytest.mark.parametrize(
    ("method", "protections", "left_out"),
    [
        (["odin"], ["open_set_distance", "open_set_detector", "ranger_clip"], []),
        (["pro", "ood_method.steps=2"], ["progip_steps", "open_set"], []),
        (["max_logit"], ["progip", "progip_steps", "open_set_openmax"], ["progip", "progip_steps"]),
    ],
    ids=lambda words: words[0] if words else "",
)
def test_every_protection_that_fits_a_method_is_timed_with_the_probes_it_needs(
    method: list[str],
    protections: list[str],
    left_out: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = [*method[1:], "--methods", method[0], "--protections", *protections]
    timed_ones = {name for name, _ in timed(tmp_path, *words)}
    assert timed_ones == {"none", *protections} - {*left_out}
    said = [message for message in caplog.messages if message.startswith("left out")]
    assert len(said) == len(left_out)
    for name, message in zip(left_out, said, strict=True):
        assert f"protection '{name}' looks at grad_max" in message


def test_a_method_that_no_protection_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match="nothing to time; protection 'progip' looks at grad_max"):
        timed(tmp_path, "--methods", "max_logit", "--protections", "progip", "progip_steps")
