"""Pairs taken in turns, against a clock that the test turns itself."""

import statistics
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from progip.deploy import timing
from progip.deploy.timing import LEAST_PAIRS, WARM_UP, threads, timed_pairs
from progip.errors import ProgipError


class Clock:
    """Shows seconds that only its detectors spend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "process_time", lambda: self.now / 2)
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)

    def detector(self, name: str, seconds: float) -> Any:
        clock = self

        class Fake:
            hooked = False

            def __call__(self, images: Tensor) -> None:
                assert self.hooked
                clock.calls.append((name, int(images[0, 0, 0, 0])))
                clock.now += seconds

            def attach(self) -> None:
                self.hooked = True
                clock.now += 100  # is on nobody's bill

            def detach(self) -> None:
                self.hooked = False
                clock.now += 100

        return Fake()


BATCHES = [torch.full((1, 1, 1, 1), float(i)) for i in range(3)]


def test_pairs_hold_what_each_call_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    baseline = clock.detector("base", 2.0)
    others = {"quick": clock.detector("quick", 3.0), "slow": clock.detector("slow", 7.0)}
    found = timed_pairs(baseline, others, BATCHES, seconds=1e9, repetitions=40, every={"slow": 4})
    assert len(found["quick"].wall) == len(found["slow"].wall) == 40
    assert set(found["quick"].wall) == {(2.0, 3.0)}
    assert set(found["quick"].processor) == {(1.0, 1.5)}
    assert set(found["slow"].wall) == {(2.0, 7.0)}


def test_neighbours_in_random_order_on_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    others = {name: clock.detector(name, 1.0) for name in ("a", "b")}
    timed_pairs(clock.detector("base", 1.0), others, BATCHES, seconds=1e9, repetitions=60)
    counted = clock.calls[2 * 2 * WARM_UP :]
    pairs = list(zip(counted[::2], counted[1::2], strict=True))
    assert all({one[0], other[0]} & {"base"} for one, other in pairs)
    assert all(one[1] == other[1] for one, other in pairs)
    assert {one[1] for one, _ in pairs} == {0, 1, 2}
    first = [one[0] == "base" for one, _ in pairs]
    assert 40 < sum(first) < 80  # of 120: either member goes first by chance
    turns = [{"a", "b"} & {one[0], other[0]} for one, other in pairs]
    order = [next(iter(turn)) for turn in turns[::2]]
    assert 15 < order.count("a") < 45  # of 60


def test_the_time_ends_it_but_not_before_everyone_has_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    others = {"often": clock.detector("often", 1.0), "seldom": clock.detector("seldom", 1.0)}
    each = 2 * 202  # seconds that a pair takes with its hooks
    found = timed_pairs(
        clock.detector("base", 2.0),
        others,
        BATCHES,
        seconds=60 * each,
        repetitions=1000,
        every={"seldom": 20},
    )
    assert 50 <= len(found["often"].wall) <= 70
    assert len(found["seldom"].wall) == LEAST_PAIRS


def test_real_clocks_see_a_real_difference() -> None:
    class Sleeper:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def __call__(self, images: Tensor) -> None:
            time.sleep(self.seconds)

        def attach(self) -> None: ...
        def detach(self) -> None: ...

    slow = {"slow": Sleeper(0.03)}
    found = timed_pairs(Sleeper(0.01), slow, BATCHES, seconds=0, repetitions=10)["slow"]
    assert len(found.wall) == LEAST_PAIRS
    assert min(one for one, _ in found.wall) >= 0.01
    assert statistics.median(other / one for one, other in found.wall) > 1.3
    assert sum(other for _, other in found.processor) < 0.05  # sleeping costs no processor time


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_wrong_arguments() -> None:
    with pytest.raises(ProgipError, match="threads=0"), threads(0):
        pass
    for change in ({"repetitions": 9}, {"seconds": -1.0}, {"contestants": {}}, {"batches": []}):
        arguments: dict[str, Any] = {"contestants": {"a": None}, "batches": BATCHES}
        arguments |= {"seconds": 1.0, "repetitions": 100, **change}
        with pytest.raises(ProgipError, match="runtime: "):
            timed_pairs(None, **arguments)  # type: ignore[arg-type]
