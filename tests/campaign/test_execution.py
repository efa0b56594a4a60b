"""The executors of a campaign: equal rows, a self-check that bites, a fallback that is said."""

import logging

import pytest
from pandas.testing import assert_frame_equal

from progip import records
from progip.campaign import subject
from progip.campaign.execution import IncrementalExecutor
from progip.campaign.pace import Pace
from progip.engine.incremental import NotTraceable
from progip.errors import ProgipError


@pytest.mark.parametrize("method", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_incremental_rows_are_those_of_the_reference(run, method: str, fault_pass: str) -> None:
    cell = ("runs=300", f"ood_method={method}", f"pass={fault_pass}")
    assert_frame_equal(
        run("executor=incremental", "name=incremental", *cell),
        run("executor=reference", "name=reference", *cell),
    )


def test_rows_do_not_depend_on_memory_or_self_check(run) -> None:
    plain = run("runs=200", "name=plain")
    assert_frame_equal(run("runs=200", "name=m", "golden_memory=1_048_576"), plain)
    assert_frame_equal(run("runs=200", "name=s", "self_check=0"), plain)
    assert_frame_equal(run("runs=200", "name=r", "self_check=1"), plain)


def test_the_self_check_stops_a_wrong_executor(run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = IncrementalExecutor.pieces

    def wrong(self, plan):
        for positions, observed in right(self, plan):
            observed["score"] = observed["score"].copy()
            observed["score"][plan["run_id"].to_numpy()[positions] == 20] += 1e-12
            yield positions, observed

    monkeypatch.setattr(IncrementalExecutor, "pieces", wrong)
    with pytest.raises(RuntimeError, match=r"self-check failed.*score=.*'run_id': 20,"):
        run("runs=60", "self_check=0.1")
    assert len(run("runs=60", "self_check=0", "name=unchecked")) == 60


def test_what_cannot_be_traced_is_executed_by_the_reference(
    run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run("runs=40", "name=traced")

    def refuse(*_: object) -> None:
        raise NotTraceable("control flow depends on values")

    monkeypatch.setattr(subject, "loaded_or_traced", refuse)
    subject._ready.clear()
    with caplog.at_level(logging.WARNING):
        assert_frame_equal(run("runs=40", "name=untraced"), expected)
    assert "control flow depends on values" in caplog.text
    subject._ready.clear()


@pytest.mark.parametrize(
    ("golden", "shards"),
    [(0.0, 2), (1.0, 2), (30.0, 30), (1e3, 60)],  # 30 s: a tenth of 300 s; never over 600 s
)
def test_blocks_last_twenty_seconds_or_longer_for_golden_values(golden: float, shards: int) -> None:
    pace = Pace(100)
    assert pace.shards() == 1
    pace.measured(100, 10.0 + golden, golden)  # 10 runs per second
    assert pace.shards() == shards


def test_first_block_at_the_known_rate() -> None:
    assert Pace(100, seconds_per_run=0.01).shards() == 20
    assert Pace(100, seconds_per_run=1e-9).shards() == 2000  # 200,000 runs at most


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("executor=fast", "executor='fast' is not one of incremental, reference"),
        ("self_check=2", "self_check=2"),
        ("golden_memory=5", "golden_memory=5"),
    ],
)
def test_wrong_settings(run, override: str, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        run(override)
