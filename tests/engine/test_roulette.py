"""Weighted termination in the executor: who is ended, and what of the others."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_incremental import images_of, pipeline_of
from tiny_networks import tiny_network
from torch import Tensor

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.engine.roulette import Roulette
from progip.engine.sites import find_sites
from progip.fault_models.base import Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.records import PASSES, ROULETTE

RUNS = 400
ROULETTE_OF = Roulette(0.25, 0.05, 0.02, first=40, seed=3, key="cell")


def prepared(fault_pass: str, size: int = 8) -> tuple[Pipeline, Tensor, list[Site], pa.Table]:
    images = images_of(10, size).contiguous(memory_format=torch.channels_last)
    pipeline = pipeline_of(tiny_network().to(memory_format=torch.channels_last), images)
    model = SingleBitFlip(name="flip")
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])
    return pipeline, images, sites, model.plan(sites, len(images), 0, fault_pass, 0, RUNS)


def executed(
    fault_pass: str,
    batch: int = 4,
    size: int = 8,
    memory: int = 2**31,
    roulette: Roulette = ROULETTE_OF,
) -> tuple[IncrementalExecutor, pa.Table, ReferenceExecutor]:
    pipeline, images, sites, plan = prepared(fault_pass, size)
    traced = Traced(pipeline, images[:batch])
    executor = IncrementalExecutor(traced, sites, fault_pass, images, memory, roulette=roulette)
    return executor, plan, ReferenceExecutor(pipeline, sites, fault_pass, images, batch)


@pytest.mark.parametrize("fault_pass", PASSES)
def test_kept_rows_equal_the_reference_and_ended_rows_golden(fault_pass: str) -> None:
    executor, plan, reference = executed(fault_pass)
    found, expected = executor.run(plan), reference.run(plan)
    factor = found["roulette"]
    assert set(np.unique(factor)) == {0.0, 1.0, 4.0}
    assert (factor[:40] == 1).all()  # the pilot is executed whole
    ended = factor == 0
    golden = golden_table(reference.pipeline, executor.images, np.zeros(10, np.int64), 4)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][~ended], values[~ended], err_msg=name)
        if name.startswith("value_"):  # what was flipped is known of ended runs, too
            np.testing.assert_array_equal(found[name][ended], values[ended], err_msg=name)
            continue
        clean = golden[name].to_numpy(zero_copy_only=False)[plan["sample_index"].to_numpy()]
        np.testing.assert_array_equal(found[name][ended], clean[ended], err_msg=name)
    tiny = (found["change_at_fault"] <= 0.05) & (found["change_at_fault"] > 0)
    tiny |= (found["change_at_logits"] <= 0.02) & (found["change_at_logits"] > 0)
    np.testing.assert_array_equal(factor != 1, tiny & (plan["run_id"].to_numpy() >= 40))


def test_some_are_ended_at_the_logits_only() -> None:
    limits = Roulette(0.25, 1e-6, 0.5, first=0, seed=3, key="cell")
    executor, plan, reference = executed("first_forward", roulette=limits)
    found, expected = executor.run(plan), reference.run(plan)
    late = found["change_at_fault"] > 1e-6
    ended, kept = found["roulette"] == 0, found["roulette"] > 0
    assert (late & ended).sum() > 20
    assert (late & (found["roulette"] == 4)).any()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][kept], values[kept], err_msg=name)


def test_changes_are_what_the_values_say() -> None:
    executor, plan, reference = executed("backward")
    found = executor.run(plan)
    seen: dict[str, Tensor] = {}
    for name, module in reference.pipeline.network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_full_backward_hook(
                lambda m, given, out, name=name: seen.__setitem__(name, given[0].detach())
            )
    reference.pipeline(executor.images)
    largest = {name: value.abs().flatten(1).amax(1).numpy() for name, value in seen.items()}
    rows = zip(plan["layer"].to_pylist(), plan["sample_index"].to_pylist(), strict=True)
    size = np.array([largest[layer][image] for layer, image in rows])
    with np.errstate(invalid="ignore"):
        change = np.abs(found["value_after"].astype(float) - found["value_before"]) / size
    known = np.isfinite(change) & (change < 1e30)
    np.testing.assert_allclose(found["change_at_fault"][known], change[known], rtol=1e-5)


@pytest.mark.parametrize("fault_pass", PASSES)
def test_decisions_depend_on_the_run_alone(fault_pass: str) -> None:
    executor, plan, _ = executed(fault_pass)
    whole = executor.run(plan)
    other, _, _ = executed(fault_pass, batch=4, memory=2**20)
    order = np.random.default_rng(0).permutation(RUNS)[:250]
    part = other.run(plan.take(pa.array(order)))
    for name in whole:
        np.testing.assert_array_equal(part[name], whole[name][order], err_msg=name)
    wide, _, _ = executed(fault_pass, batch=7)
    np.testing.assert_array_equal(wide.run(plan)["roulette"], whole["roulette"])


def test_windows_end_the_same_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progip.engine.incremental.schedule.LEAST", 16)
    executor, plan, reference = executed("first_forward", size=24)
    assert executor.schedule.windowed
    found = executor.run(plan)
    kept = found["roulette"] > 0
    assert 0 < kept.sum() < RUNS
    for name, values in reference.run(plan).items():
        np.testing.assert_array_equal(found[name][kept], values[kept], err_msg=name)


def test_images_are_spared() -> None:
    executor, plan, _ = executed("second_forward", roulette=replace(ROULETTE_OF, spared={2, 5}))
    factor = executor.run(plan)["roulette"]
    spared = np.isin(plan["sample_index"].to_numpy(), [2, 5])
    assert (factor[spared] == 1).all()
    assert (factor[~spared] == 0).any()


def test_nothing_is_added_without_it() -> None:
    pipeline, images, sites, plan = prepared("backward")
    executor = IncrementalExecutor(Traced(pipeline, images[:4]), sites, "backward", images)
    assert not set(executor.run(plan)) & set(ROULETTE.names)
