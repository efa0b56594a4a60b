"""The path of a GPU, run on a CPU: comparisons read a step later, few values read back."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incremental import ALL_TYPES, Branches, assert_equal, images_of, pipeline_of
from tiny_networks import tiny_network
from torch import Tensor

from progip.engine.incremental import IncrementalExecutor, Traced, executor
from progip.engine.incremental.transfers import Stopwatch
from progip.engine.pipeline import Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.engine.roulette import Roulette
from progip.engine.sites import find_sites
from progip.fault_models.base import FaultModel, Hits, Site
from progip.fault_models.flipped_bits import OneBit
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.records import PASSES

Made = tuple[IncrementalExecutor, ReferenceExecutor, pa.Table]


def made(
    pipeline: Pipeline, images: Tensor, fault_pass: str, model: FaultModel, batch: int, runs: int,
    roulette: Roulette | None = None,
) -> Made:  # fmt: skip
    sites: list[Site] = model.select(
        find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass]
    )
    draw: Callable[[pa.Table], Hits] | None = None
    if model.many:
        draw = lambda plan: model.hits(sites, plan, 0, "cell")  # noqa: E731
    late = IncrementalExecutor(
        Traced(pipeline, images[:batch]), sites, fault_pass, images,
        roulette=roulette, draw=draw, late=True,
    )  # fmt: skip
    reference = ReferenceExecutor(pipeline, sites, fault_pass, images, batch, draw)
    return late, reference, model.plan(sites, len(images), 0, "cell", 0, runs)


def most_reads(executor: IncrementalExecutor) -> int:
    """Of one propagation: a comparison each contracting step, the values hit, twice roulette."""
    return sum(step.compare for step in executor.schedule.steps) + 3


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", PASSES)
def test_equals_the_reference_with_few_reads(fault_pass: str, kind: str) -> None:
    images = images_of(11).contiguous(memory_format=torch.channels_last)
    pipeline = pipeline_of(tiny_network().to(memory_format=torch.channels_last), images, kind)
    model = SingleBitFlip(name="flip", layer_types=ALL_TYPES)
    late, reference, plan = made(pipeline, images, fault_pass, model, 4, 400)
    propagations = sum(1 for _ in late.pieces(plan))
    assert 0 < late.reads.count <= propagations * most_reads(late)
    before = late.reads.count
    assert_equal(reference.run(plan), late.run(plan))
    # ten times the batches of rows, not a read more
    late.runs_per_propagation = 10_000
    many = model.plan(late._sites, len(images), 0, "cell", 0, 4000)
    late.reads.count = 0
    late.run(many)
    assert late.reads.count <= max(before, propagations * most_reads(late))


@pytest.mark.parametrize("fault_pass", PASSES)
def test_large_batches(fault_pass: str) -> None:
    images = images_of(512)
    pipeline = pipeline_of(tiny_network(), images)
    model = SingleBitFlip(name="flip")
    late, reference, plan = made(pipeline, images, fault_pass, model, 512, 1100)
    assert_equal(reference.run(plan), late.run(plan))
    assert late.reads.count <= most_reads(late)


@pytest.mark.parametrize("fault_pass", PASSES)
def test_several_hits_and_ended_runs(fault_pass: str) -> None:
    images = images_of(9)
    pipeline = pipeline_of(tiny_network(), images)
    late, reference, plan = made(
        pipeline, images, fault_pass, OneBit(name="few", rate=0.004, layer_types=ALL_TYPES), 4, 200
    )
    assert_equal(reference.run(plan), late.run(plan))
    rule = Roulette(0.25, 0.05, 0.02, first=0, seed=3, key="cell")
    late, reference, plan = made(
        pipeline, images, fault_pass, SingleBitFlip(name="flip"), 4, 300, rule
    )
    found = late.run(plan)
    kept = found["roulette"] > 0
    assert 0 < kept.sum() < 300
    for name, values in reference.run(plan).items():
        np.testing.assert_array_equal(found[name][kept], values[kept], err_msg=name)
    parts = -(-300 // late.runs_per_propagation) + 2
    assert late.reads.count <= parts * most_reads(late)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(reuse=st.booleans(), tokens=st.booleans(), seed=st.integers(0, 2**16))
def test_random_networks(reuse: bool, tokens: bool, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Branches(4, 2, reuse, tokens).eval().requires_grad_(False)
    images = images_of(7, 8, seed)
    pipeline = pipeline_of(network, images)
    model = SingleBitFlip(name="flip", layer_types=["Conv2d", "Linear", "ReLU"])
    for fault_pass in PASSES:
        late, reference, plan = made(pipeline, images, fault_pass, model, 4, 80)
        assert_equal(reference.run(plan), late.run(plan))


def test_golden_values_of_one_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed before the next are made, whether or not Python looks for cycles."""
    images = images_of(12)
    model = SingleBitFlip(name="flip")
    _, _, plan = found = made(pipeline_of(tiny_network(), images), images, "backward", model, 4, 60)
    alive: list[list[weakref.ref[Tensor]]] = []
    inner = executor.golden_values

    def watched(*given: Any) -> Any:
        assert not any(value() is not None for batch in alive for value in batch)
        golden = inner(*given)
        large = [v for v in golden.values() if isinstance(v, Tensor) and v is not golden[0]]
        alive.append([weakref.ref(v) for v in large])
        return golden

    monkeypatch.setattr(executor, "golden_values", watched)
    gc.disable()
    try:
        found[0].run(plan)
    finally:
        gc.enable()
    assert len(alive) == 3
    assert all(alive)


def test_stopwatch_adds_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("progip.engine.incremental.transfers.time.monotonic", lambda: next(times))
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.seconds == 2.5
