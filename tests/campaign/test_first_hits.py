"""When runs with several hits are executed incrementally."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from progip.campaign.execution import Execution
from progip.campaign.first_hits import saved_share
from progip.engine.incremental import IncrementalExecutor
from progip.fault_models.base import Hits, Site
from progip.passes import passes_of

SITES = [Site(name, 0, "Linear", (10,), 10, 100) for name in "abcd"]
PASSES = ("first_forward", "backward", "second_forward")


def hits(*of_runs: list[int]) -> Hits:
    row = np.repeat(np.arange(len(of_runs)), [len(sites) for sites in of_runs])
    site = np.concatenate([np.array(sites, dtype=np.int64) for sites in of_runs])
    return Hits(row, site, np.zeros(len(row), np.int64), np.ones(len(row), np.uint32))


def test_share_before_the_first_hit() -> None:
    found = hits([2, 3], [1], [])  # half of the pass, a quarter of it, all
    before = {"first_forward": 0.0, "backward": 1.0, "second_forward": 2.8}
    for name, work in {"first_forward": 1.0, "second_forward": 1.0}.items():
        expected = ((before[name] + work / 2) / 3.8 + (before[name] + work / 4) / 3.8 + 1) / 3
        assert saved_share(found, 3, SITES, name, PASSES) == pytest.approx(expected)
    # the gradient meets the last layer first: site 3 at once, site 1 after half of the pass
    expected = (1 / 3.8 + (1 + 0.9) / 3.8 + 1) / 3
    assert saved_share(found, 3, SITES, "backward", PASSES) == pytest.approx(expected)
    assert saved_share(hits([0]), 1, SITES, "first_forward", PASSES[:1]) == 0.0
    # two steps: forward, backward, forward are done when the second gradient begins
    expected = ((3.8 + 1.8 / 4) / 6.6 + (3.8 + 1.8 / 2) / 6.6) / 2
    two = hits([2], [1])
    assert saved_share(two, 2, SITES, "backward_2", passes_of(2)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate", "fault_pass", "incremental"),
    [(1e-4, "first_forward", True), (1e-2, "first_forward", False), (1e-2, "second_forward", True)],
)
def test_campaigns_choose_by_it_and_rows_are_the_same(
    run, monkeypatch: pytest.MonkeyPatch, rate: float, fault_pass: str, incremental: bool
) -> None:
    chosen = []
    inner = Execution.__init__

    def watched(self: Execution, *args: object) -> None:
        inner(self, *args)
        chosen.append(isinstance(self._executor, IncrementalExecutor))

    monkeypatch.setattr(Execution, "__init__", watched)
    options = ("runs=60", "fault_model=one_bit", f"fault_model.rate={rate}", f"pass={fault_pass}")
    rows: pd.DataFrame = run(*options, "name=quick", "self_check=0.2")
    plain = run(*options, "name=plain", "executor=reference")
    assert chosen == [incremental, False]
    assert_frame_equal(rows, plain)
    assert rows["hits"].max() > 1
