"""Fault-free values as planned against those that the reference executor meets."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_reference import pipeline_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip import records
from progip.engine.clean_values import CleanValues
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import NoFault
from progip.records import PASSES
from progip.sampling.change import CODES, codes_of, scale_of

IMAGES, BATCH = 9, 4


class Reused(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(self.conv(x).relu()).mean((2, 3)))
        return out


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["odin", "mahalanobis", "reused"])
@pytest.mark.parametrize("fault_pass", PASSES)
def test_codes_are_of_the_values_that_faults_meet(
    fault_pass: str, kind: str, channels_last: bool
) -> None:
    network = Reused().eval().requires_grad_(False) if kind == "reused" else tiny_network()
    images = torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    pipeline = pipeline_of(network, images, "mahalanobis" if kind == "mahalanobis" else "odin")
    model = NoFault(name="none", layer_types=["Conv2d", "Linear", "ReLU"])
    sites = model.select(find_sites(network, pipeline.method, images[:2])[fault_pass])
    reference = ReferenceExecutor(pipeline, sites, fault_pass, images, BATCH)
    kept, again = CleanValues(reference), CleanValues(reference, memory=0)
    assert np.array_equal(kept.counts, again.counts)
    assert np.array_equal(kept.counts.sum(1), [[s.neurons] * IMAGES for s in sites])

    every = [
        (i, s.layer, s.call, n)
        for s in sites
        for i in range(IMAGES)
        for n in range(0, s.neurons, 7)
    ]
    plan = pa.table(
        {
            **dict(zip(("sample_index", "layer", "call", "neuron"), zip(*every, strict=True),
                       strict=True)),
            "run_id": range(len(every)),
            "bit": [-1] * len(every),
            "weight": [1.0] * len(every),
            "stratum": [0] * len(every),
        }
    )  # fmt: skip
    plan = plan.select(records.PLAN.names).cast(records.PLAN)
    met = reference.run(plan)["value_before"]
    exponents = (met.view(np.uint32) >> 23 & 0xFF).astype(np.uint8)
    keys = [site.key for site in sites]
    site = np.array([keys.index((layer, call)) for _, layer, call, _ in every])
    image, neuron = np.array([e[0] for e in every]), np.array([e[3] for e in every])
    code = np.array(
        [codes_of(e[None], int(kept.scale[s]))[0] for e, s in zip(exponents, site, strict=True)]
    )
    # the rank of each value among those of its code, found by asking for all of them
    for values in (kept, again):
        for s, i in {(s, i) for s, i in zip(site.tolist(), image.tolist(), strict=True)}:
            here = np.flatnonzero((site == s) & (image == i))
            of = [np.full(kept.counts[s, c, i], c) for c in range(CODES)]
            rank = np.concatenate([np.arange(len(part)) for part in of])
            found = values.neurons(
                np.full(len(rank), i), np.full(len(rank), s), np.concatenate(of), rank
            )
            assert sorted(found) == list(range(sites[s].neurons))
            by_neuron = np.concatenate(of)[np.argsort(found)]
            assert np.array_equal(by_neuron[neuron[here]], code[here])


def test_the_scale_leaves_few_values_above() -> None:
    exponents = np.repeat([100, 120, 125, 130], [50, 900, 40, 10]).astype(np.uint8)
    assert scale_of(exponents) == 125
    assert codes_of(np.array([0, 1, 100, 101, 125, 126, 254], np.uint8), 125).tolist() == [
        0, 1, 1, 1, 25, 26, 32,
    ]  # fmt: skip
