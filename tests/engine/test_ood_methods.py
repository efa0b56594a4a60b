"""Every OOD method under both executors: the same columns, bit for bit, in each of its passes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from decomposed_networks import decomposed_network
from test_incremental import ALL_TYPES, assert_equal, images_of
from tiny_networks import balanced_network, tiny_network
from torch import nn

from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.adascale import AdaSCALE
from progip.ood_methods.base import OODMethod
from progip.ood_methods.energy import Energy
from progip.ood_methods.generalised_odin import GeneralisedODIN
from progip.ood_methods.i_odin import IODIN
from progip.ood_methods.max_logit import MaxLogit
from progip.ood_methods.max_softmax import MaxSoftmax
from progip.ood_methods.openmax import OpenMax
from progip.ood_methods.pro import PRO

METHODS: dict[str, Callable[[], OODMethod]] = {
    "max_softmax": lambda: MaxSoftmax(name="max_softmax"),
    "max_logit": lambda: MaxLogit(name="max_logit"),
    "energy": lambda: Energy(name="energy", temperature=2.0),
    "openmax": lambda: OpenMax(name="openmax"),
    "i_odin": lambda: IODIN(name="i_odin", std=[0.5] * 3, epsilon=0.5),
    "generalised_odin": lambda: GeneralisedODIN(name="generalised_odin", std=[0.5] * 3),
    "pro": lambda: PRO(name="pro", steps=1),
    "pro of three steps": lambda: PRO(name="pro", steps=3, epsilon=0.1),
    "adascale_a": lambda: AdaSCALE(name="adascale", p_low=5.0, p_high=95.0),
    "adascale_l": lambda: AdaSCALE(name="adascale", variant="logit", p_low=5.0, p_high=95.0),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_both_executors_give_the_same(name: str, memory_format: torch.memory_format) -> None:
    images = images_of(19).contiguous(memory_format=memory_format)
    train = images_of(300, seed=2)
    network: nn.Module = (
        decomposed_network() if name == "generalised_odin" else balanced_network(train)
    ).to(memory_format=memory_format)
    method = METHODS[name]()
    with profiling(network, images[:2]) as ranges:
        method.fit(network, [(train, network(train).argmax(1))])
    pipeline = Pipeline(network, method, ranges)
    traced = Traced(pipeline, images[:8])
    sites = find_sites(network, method, images[:2])
    for fault_pass in method.passes:
        model = SingleBitFlip(name="flip", layer_types=[*ALL_TYPES, "Similarity"])
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(images), 0, fault_pass, 0, 300)
        reference = ReferenceExecutor(pipeline, chosen, fault_pass, images, 8).run(plan)
        incremental = IncrementalExecutor(traced, chosen, fault_pass, images).run(plan)
        assert_equal(reference, incremental)
        golden = pipeline(images).score.numpy()[plan["sample_index"].to_numpy()]
        fine = np.isclose(reference["score"], golden, rtol=1e-5, atol=0)
        assert 0 < fine.mean() < 1, fault_pass  # some faults reach the score, some do not


def test_every_step_of_pro_has_the_sites_of_the_first() -> None:
    network, images = tiny_network(), images_of(5)
    one, three = (find_sites(network, PRO(name="pro", steps=n), images[:3]) for n in (1, 3))
    assert all(one.values())
    assert list(three) == [*one, "forward_2", "backward_2", "forward_3", "backward_3"]
    assert {name: three[name] for name in one} == one
    for step in (2, 3):
        assert [s.key for s in three[f"backward_{step}"]] == [s.key for s in one["backward"]]
        forward, first = three[f"forward_{step}"], one["first_forward"]
        assert [(s.key, s.shape) for s in forward] == [(s.key, s.shape) for s in first]


def test_the_scaled_head_of_adascale_is_a_site_of_its_own() -> None:
    network, images = tiny_network(), images_of(5)
    method = AdaSCALE(name="adascale")
    method.fit(network, [(images, torch.zeros(5))])
    sites = find_sites(network, method, images[:3])
    calls = {name: [s.call for s in found if s.layer == "6"] for name, found in sites.items()}
    assert calls == {"first_forward": [0], "backward": [0], "second_forward": [0, 1]}
