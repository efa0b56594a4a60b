"""Faults in parameters: every bit of a tiny network against plain loops; both executors alike."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_incremental import assert_equal, images_of, pipeline_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.engine.incremental import IncrementalRounds, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.rounds import RoundExecutor
from progip.fault_models.base import MAP, Hits, Site, named_hits
from progip.fault_models.parameters import Memory, parameter_sites
from progip.models.loading import weights_fingerprint
from progip.ood_methods.none import NoMethod
from progip.probes.logits_digest import LogitsDigest
from progip.records import PLAN

BATCH = 8


def plain(network: nn.Module) -> Pipeline:
    return Pipeline(network, NoMethod(name="none"), RangeTable({}, {}, {}), [LogitsDigest()])


def plan_of(sites: list[Site], faults: list[tuple[int, int, int]], images: int) -> pa.Table:
    """Each fault (position of the site, neuron, bit) on all images in turn."""
    count = len(faults) * images
    site, neuron, bit = (np.repeat(part, images) for part in zip(*faults, strict=True))
    columns = {
        "run_id": np.arange(count),
        "sample_index": np.tile(np.arange(images), len(faults)),
        "layer": np.array([s.layer for s in sites], dtype=object)[site],
        "call": np.array([s.call for s in sites])[site],
        "neuron": neuron,
        "bit": bit,
        "weight": np.ones(count),
        "stratum": np.zeros(count),
    }
    plan = pa.table(columns).cast(PLAN)
    plan = plan.append_column(MAP[0], pa.array(np.repeat(np.arange(len(faults)), images), "int32"))
    names = np.array([s.parameter for s in sites], dtype=object)[site]
    return plan.append_column(MAP[1], pa.array(names, "string"))


def by_loops(network: nn.Module, images: Tensor, site: Site, neuron: int, bit: int) -> np.ndarray:
    """The class of every image under one fault, by NumPy and state dicts alone."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    name = f"{site.layer}.{site.parameter}"
    words = state[name].numpy().copy().reshape(-1).view(np.uint32)
    words[neuron] ^= np.uint32(1 << bit)
    faulty = tiny_network()
    faulty.load_state_dict(
        {**state, name: torch.from_numpy(words.view(np.float32)).reshape(state[name].shape)}
    )
    logits = torch.cat([faulty(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    return logits.numpy()


def test_every_bit_of_some_parameters_against_plain_loops() -> None:
    network, images = tiny_network(), images_of(2 * BATCH)
    sites = parameter_sites(network, {})
    assert {f"{s.layer}.{s.parameter}" for s in sites} == set(dict(network.named_parameters()))
    some = [i for i, s in enumerate(sites) if s.layer in ("0", "6", "2.norm")]
    faults = list(product(some, range(3), range(32)))
    plan = plan_of(sites, faults, len(images))
    before = weights_fingerprint(network)
    executor = RoundExecutor(plain(network), sites, images, BATCH)
    found = executor.run(plan)
    assert weights_fingerprint(network) == before
    traced = Traced(plain(network), images[:BATCH])
    fast = IncrementalRounds(traced, sites, images, lambda maps: named_hits(sites, maps))
    assert_equal(found, fast.run(plan))
    largest = found["argmax"].reshape(len(faults), -1)
    critical = 0
    for number, (site, neuron, bit) in enumerate(faults):
        expected = by_loops(network, images, sites[site], neuron, bit)
        np.testing.assert_array_equal(largest[number], expected.argmax(1))
        critical += int((largest[number] != network(images).argmax(1).numpy()).sum())
    assert critical > 5  # the comparison is of something


@pytest.mark.parametrize("kind", ["odin", "mahalanobis"])
def test_both_executors_under_a_detector(kind: str) -> None:
    network, images = tiny_network(), images_of(20)
    pipeline = pipeline_of(network, images, kind)
    sites = parameter_sites(network, {})
    draw = np.random.default_rng(3)
    faults = [
        (site, int(draw.integers(sites[site].neurons)), bit)
        for site in range(len(sites))
        for bit in (3, 22, 26, 30, 31)
    ]
    plan = plan_of(sites, faults, len(images))
    traced = Traced(pipeline, images[:BATCH])
    fast = IncrementalRounds(traced, sites, images, lambda maps: named_hits(sites, maps))
    expected = RoundExecutor(pipeline, sites, images, BATCH).run(plan)
    assert_equal(expected, fast.run(plan))
    assert len(np.unique(expected["score"])) > 20
    part = pa.concat_tables([plan.slice(5, 3), plan.slice(401, 9)])  # begun rounds
    rows = [*range(5, 8), *range(401, 410)]
    assert_equal({n: c[rows] for n, c in expected.items()}, fast.run(part))


class Twice(nn.Module):
    """A layer that is called twice, whose weight is then used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(torch.relu(self.conv(x))))
        return self.head(x.mean((2, 3)))


def test_a_weight_that_is_used_twice() -> None:
    torch.manual_seed(0)
    network, images = Twice().eval().requires_grad_(False), images_of(12)
    sites = parameter_sites(network, {})
    plan = plan_of(sites, [(0, n, b) for n in (0, 40) for b in (20, 29, 30)], len(images))
    traced = Traced(plain(network), images[:4])
    fast = IncrementalRounds(traced, sites, images, lambda maps: named_hits(sites, maps))
    assert_equal(RoundExecutor(plain(network), sites, images, 4).run(plan), fast.run(plan))


def hits_of(neurons: list[int], mask: list[int], clear: list[int] | None = None) -> Hits:
    zeros = np.zeros(len(neurons), dtype=np.int64)
    cleared = None if clear is None else np.array(clear, dtype=np.uint32)
    return Hits(zeros, zeros, np.array(neurons), np.array(mask, dtype=np.uint32), cleared)


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_is_written_and_restored(channels_last: bool) -> None:
    conv = nn.Conv2d(4, 5, 3).requires_grad_(False)
    if channels_last:
        conv = conv.to(memory_format=torch.channels_last)
    clean = conv.weight.clone().numpy().reshape(-1)
    memory = Memory(conv, parameter_sites(conv, {})[:1])
    stuck = hits_of([7, 100], [1 << 30, 0], [1 << 30, 1 << 31])
    with memory.faulty(stuck) as written:
        words = conv.weight.numpy().copy().reshape(-1).view(np.uint32)
        expected = clean.copy().view(np.uint32)
        expected[7] |= np.uint32(1 << 30)
        expected[100] &= np.uint32(~(1 << 31) & 0xFFFFFFFF)
        np.testing.assert_array_equal(words, expected)
        np.testing.assert_array_equal(written.before, clean[[7, 100]])
        np.testing.assert_array_equal(written.after.view(np.uint32), expected[[7, 100]])
    np.testing.assert_array_equal(conv.weight.numpy().reshape(-1), clean)
    memory.check()
    conv.weight[0, 0, 0, 0] += 1
    with pytest.raises(RuntimeError, match="not what they were"):
        memory.check()


def test_memory_is_restored_when_a_round_fails() -> None:
    conv = nn.Conv2d(4, 5, 3).requires_grad_(False)
    memory = Memory(conv, parameter_sites(conv, {})[:1])
    with pytest.raises(ZeroDivisionError), memory.faulty(hits_of([3], [1 << 30])):
        raise ZeroDivisionError
    memory.check()
