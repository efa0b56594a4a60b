"""Runs with several hits, executed incrementally: the columns of the reference, bit for bit."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_incremental import ALL_TYPES, assert_equal, images_of, pipeline_of
from tiny_networks import tiny_network

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.at_rate import AtRate
from progip.fault_models.base import Hits
from progip.fault_models.elements import RandomElements
from progip.fault_models.flipped_bits import OneBit, WordError
from progip.records import PASSES

MODELS = {
    "few": OneBit(name="few", rate=0.002, layer_types=ALL_TYPES),
    "many": WordError(name="many", rate=0.02, layer_types=["Conv2d", "ReLU", "Linear"]),
    "replaced": RandomElements(name="replaced", number=3, at_once=2),
}


@pytest.mark.parametrize("fault_pass", PASSES)
@pytest.mark.parametrize("kind", list(MODELS))
def test_equals_the_reference(fault_pass: str, kind: str) -> None:
    model = MODELS[kind]
    images = images_of(9).contiguous(memory_format=torch.channels_last)
    pipeline = pipeline_of(tiny_network().to(memory_format=torch.channels_last), images)
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])[fault_pass])

    def draw(plan: pa.Table) -> Hits:
        return model.hits(sites, plan, 3, "cell")

    plan = model.plan(sites, len(images), 3, "cell", 0, 150)
    traced = Traced(pipeline, images[:4])
    quick = IncrementalExecutor(traced, sites, fault_pass, images, draw=draw)
    expected = ReferenceExecutor(pipeline, sites, fault_pass, images, 4, draw).run(plan)
    found = quick.run(plan)
    assert_equal(expected, found)
    assert (found["hits"] > 1).sum() > 10
    if kind == "few":
        assert (found["hits"] == 0).any()
    order = np.random.default_rng(0).permutation(150)[:70]  # in other company
    part = quick.run(plan.take(pa.array(order)))
    assert_equal({name: values[order] for name, values in expected.items()}, part)


def test_two_hits_of_one_neuron_s_layer_and_of_a_later_one() -> None:
    """A second hit meets the value that the first one has changed."""
    images = images_of(4)
    pipeline = pipeline_of(tiny_network(), images)
    model = OneBit(name="x", rate=0.1)
    sites = model.select(find_sites(pipeline.network, pipeline.method, images[:2])["first_forward"])
    assert isinstance(model, AtRate)

    def draw(plan: pa.Table) -> Hits:
        row = np.repeat(np.arange(len(plan)), 3)
        site = np.tile([0, 0, len(sites) - 1], len(plan))
        neuron = np.tile([5, 6, 1], len(plan))
        mask = np.tile(np.array([2**30, 2**29, 2**22], dtype=np.uint32), len(plan))
        return Hits(row, site, neuron, mask)

    plan = model.plan(sites, len(images), 0, "cell", 0, 8)
    traced = Traced(pipeline, images)
    found = IncrementalExecutor(traced, sites, "first_forward", images, draw=draw).run(plan)
    reference = ReferenceExecutor(pipeline, sites, "first_forward", images, 4, draw)
    assert_equal(reference.run(plan), found)
    assert (found["hits"] == 3).all()
