"""What is said before the first run, with its time, and how it counts in the next estimate."""

import logging
import re
import time
from pathlib import Path

import pytest

from progip.campaign import sizing, steps, subject
from progip.campaign.sizing import Sizing, Speed, known_speed, remember_speed
from progip.campaign.steps import step


def test_a_step_is_named_while_it_lasts_and_timed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps, "PATIENCE", 0.05)
    monkeypatch.setattr(steps, "WORTH_TELLING", 0.2)
    with caplog.at_level(logging.INFO):
        with step("quick"):
            pass
        assert caplog.messages == []
        with step("slow"):
            time.sleep(0.25)
            assert caplog.messages == ["slow ..."]
    assert re.fullmatch(r"slow: 0\.\d s", caplog.messages[1])


def test_a_long_step_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter([0.0, 10.0, 31.0, 50.0, 80.0])
    monkeypatch.setattr(steps.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        counted = steps.Counted("clean runs", 4000)
        for _ in range(4):
            counted.add(500)
    assert caplog.messages == [
        "clean runs: 1,000 of 4,000 images, 32.3 a second, 93 s left",
        "clean runs: 2,000 of 4,000 images, 25 a second, 80 s left",
    ]


def test_golden_work_says_how_far_it_is(
    run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps, "HEARTBEAT_SECONDS", 0.0)
    subject._ready.clear()
    with caplog.at_level(logging.INFO):
        run("runs=20", "name=golden", "dataset.calibration=101")  # no other test's golden work
    told = [text for text in caplog.messages if " images, " in text]
    assert any(text.startswith("odin: training images: ") for text in told)
    (last,) = [text for text in told if text.startswith("clean runs")][-1:]
    done, total = re.findall(r"[\d,]+", last)[:2]
    assert done == total


def test_every_step_before_the_first_run_is_told(
    run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps, "WORTH_TELLING", 0.0)
    subject._ready.clear()
    with caplog.at_level(logging.INFO):
        run("runs=20")
        told = [text.partition(":")[0] for text in caplog.messages if text.endswith(" s")]
        assert [name for name in told if not name.startswith("digits")] == [
            "loading the network and its images",
            "golden results",
            "finding what faults can hit",
            "a batch without faults, to be golden again",
            "graph of the detector for incremental execution",
            "working out what each fault can change",
        ]
        caplog.clear()
        run("runs=20", "name=other")  # of the same subject: nothing is loaded or traced again
        assert not any("graph of" in text or "loading" in text for text in caplog.messages)


def test_the_start_counts_in_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "cache_root", lambda: tmp_path)
    assert known_speed("cell") is None
    said = Sizing().announcement(100, 10**6, None)
    assert said.endswith("; how long it takes is not known yet")
    remember_speed("cell", Speed(66.0, 2.0))
    assert known_speed("cell") == Speed(66.0, 2.0)
    remember_speed("cell", Speed(0.1, 1.0))  # all was ready, which the next process will not find
    assert known_speed("cell") == Speed(66.0, 1.0)
    said = Sizing().announcement(600, 10**6, known_speed("cell"))
    assert said.endswith("about 11 min here, 66 s of it before the first run")
    (tmp_path / "speed.json").write_text('{"cell": 0.5}')  # as older versions wrote it
    assert known_speed("cell") == Speed(0.0, 0.5)
