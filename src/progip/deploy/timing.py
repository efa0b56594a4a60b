"""Runtimes taken in turns: pairs of one baseline and one contestant, neighbours in time."""

import gc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from progip.errors import ProgipError

WARM_UP = 5
LEAST_PAIRS = 10


class Detector(Protocol):
    """What is timed: a guarded detector, or something like it."""

    def __call__(self, images: Tensor) -> Any: ...
    def attach(self) -> None: ...
    def detach(self) -> None: ...


@dataclass
class Pairs:
    """Seconds a call; (n, 2) each: the baseline's and the contestant's, taken one after the other.

    Attributes:
        wall: what a clock on the wall shows.
        processor: of all threads of this process; on a GPU what the host spends.
    """

    wall: list[tuple[float, float]] = field(default_factory=list)
    processor: list[tuple[float, float]] = field(default_factory=list)


def timed_pairs(
    baseline: Detector,
    contestants: Mapping[str, Detector],
    batches: Sequence[Tensor],
    *,
    seconds: float,
    repetitions: int,
    every: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, Pairs]:
    """Time each contestant next to the baseline, in random order, until the time is up.

    A repetition takes one batch and times a pair for every contestant: contestants in random order,
    either member first by chance. Hooks are put on before and taken off after each call, outside
    the clock, so that nobody pays for another's. After `WARM_UP` pairs each that are not counted,
    repetitions go on for `seconds`, at least `LEAST_PAIRS` pairs each and at most ``repetitions``.

    Args:
        batches: used in turn; on a GPU the clock stops when the device has finished.
        every: a contestant takes part in every so many repetitions; default 1.

    Raises:
        ProgipError: an argument leaves nothing to measure.
    """
    if not contestants or not batches:
        raise ProgipError("runtime: give at least one contestant and one batch")
    if repetitions < LEAST_PAIRS or seconds < 0:
        raise ProgipError(
            f"runtime: repetitions={repetitions} must be at least {LEAST_PAIRS} and "
            f"seconds={seconds} not negative"
        )
    share = {name: (every or {}).get(name, 1) for name in contestants}
    random = np.random.default_rng(seed)
    pairs = {name: Pairs() for name in contestants}
    for detector in (baseline, *contestants.values()):
        detector.detach()
    for _ in range(WARM_UP):
        for contestant in contestants.values():
            _pair(baseline, contestant, batches[0], False)
    with _without_collections():
        begun = time.monotonic()
        for turn in range(repetitions * max(share.values())):
            late = time.monotonic() - begun > seconds
            due = [n for n in random.permutation(list(contestants)) if turn % share[n] == 0]
            if late:  # only who has too few pairs goes on, in every repetition
                due = [n for n in contestants if len(pairs[n].wall) < LEAST_PAIRS]
            due = [n for n in due if len(pairs[n].wall) < repetitions]
            if late and not due:
                break
            for name in due:
                wall, processor = _pair(
                    baseline,
                    contestants[name],
                    batches[turn % len(batches)],
                    bool(random.integers(2)),
                )
                pairs[name].wall.append(wall)
                pairs[name].processor.append(processor)
    return pairs


@contextmanager
def threads(count: int, pin: bool = True) -> Iterator[None]:
    """Torch on this many threads inside, this process on as many processors where that is known.

    Raises:
        ProgipError: count is not positive.
    """
    if count < 1:
        raise ProgipError(f"threads={count}: must be at least 1")
    before = torch.get_num_threads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    torch.set_num_threads(count)
    if pin and allowed:
        os.sched_setaffinity(0, sorted(allowed)[-count:])
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if pin and allowed:
            os.sched_setaffinity(0, allowed)


Measured = tuple[float, float]


def _pair(
    baseline: Detector, contestant: Detector, images: Tensor, swapped: bool
) -> tuple[Measured, Measured]:
    """(wall, processor) seconds, each (baseline, contestant)."""
    if swapped:
        last, first = _once(contestant, images), _once(baseline, images)
    else:
        first, last = _once(baseline, images), _once(contestant, images)
    return (first[0], last[0]), (first[1], last[1])


def _once(detector: Detector, images: Tensor) -> Measured:
    detector.attach()
    try:
        _finish(images)
        wall, processor = time.perf_counter(), time.process_time()
        detector(images)
        _finish(images)
        return time.perf_counter() - wall, time.process_time() - processor
    finally:
        detector.detach()


def _finish(images: Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Garbage collection would hit one member of a pair."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
