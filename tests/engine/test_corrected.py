"""What corrections are scored against: where hits go, and which of them were corrected."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_networks import labelled, tiny_network
from torch import Tensor, nn

from progip.engine.corrected import CorrectedPipeline
from progip.engine.paths import Path, find_paths
from progip.engine.ranges import RangeTable, profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.base import Hits
from progip.fault_models.flipped_bits import OneBit
from progip.ood_methods.none import NoMethod
from progip.ood_methods.odin import ODIN
from progip.protections.range_restriction import RangeRestriction


class Dense(nn.Module):
    """Convolutions whose outputs are concatenated, normalised, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        self.three, self.norm = nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12)
        self.first, self.second, self.third = nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(self.first(x))], 1)
        y = self.second(self.norm(x))
        y = self.third(x + self.three(y))
        return self.head(self.pool(y).flatten(1))


def test_paths_through_concatenation_normalisation_and_addition(images: Tensor) -> None:
    torch.manual_seed(0)
    network = Dense().eval().requires_grad_(False)
    sites = find_sites(network, NoMethod(name="none"), images[:2])["first_forward"]
    sites = [s for s in sites if s.kind in ("Conv2d", "Linear")]
    calls = [("first", 0), ("second", 0), ("third", 0), ("pool", 0)]
    found = dict(
        zip([s.layer for s in sites], find_paths(network, sites, calls, images[:1]), strict=True)
    )
    image = 3 * 64  # what stands before the outputs of the first convolution
    assert set(found["one"]) == {Path(c, image) for c in calls[:3]}
    assert set(found["two"]) == {Path(c, 7 * 64) for c in calls[1:3]}
    assert found["three"] == [Path(("third", 0), 0)]
    assert found["head"] == []
    assert find_paths(network, sites, [("one", 0)], images[:1])[0] == [Path(("one", 0), 0)]


class Skipping(nn.Module):
    """The shortcut of ResNet-20: every second pixel, more channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.first, self.second, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(128, 4)
        nn.init.constant_(self.one.weight, 0)
        nn.init.constant_(self.one.bias, -2e4)  # a probe of some channels dies in the ReLU
        with torch.no_grad():
            self.one.bias[0] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.one(x))
        skip = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(self.second(self.two(x) + skip).flatten(1))


def test_a_shortcut_that_skips_pixels_is_no_path(images: Tensor) -> None:
    network = Skipping().eval().requires_grad_(False)
    sites = find_sites(network, NoMethod(name="none"), images[:2])["first_forward"]
    sites = [s for s in sites if s.kind == "Conv2d"]
    found = find_paths(network, sites, [("first", 0), ("second", 0)], images[:1])
    assert found == [[Path(("first", 0), 0)], [Path(("second", 0), 0)]]


@pytest.mark.parametrize("method", ["none", "odin"])
@pytest.mark.parametrize("fault_pass", ["first_forward", "second_forward"])
def test_scores_equal_counting_by_hand(images: Tensor, method: str, fault_pass: str) -> None:
    """Against a slow count over every value of a network without paths to be found."""
    if method == "none" and fault_pass == "second_forward":
        pytest.skip("no such pass")
    network = tiny_network()
    protection = RangeRestriction(name="clip")
    protected = protection.protect(network, protection.fit(network, labelled([images])))
    chosen = NoMethod(name="none") if method == "none" else ODIN(name="odin", std=[0.5] * 3)
    with profiling(protected, images[:2]) as ranges:
        chosen.fit(protected, [(images, torch.zeros(40))])
    pipeline = CorrectedPipeline(protected, chosen, ranges, network)
    model = OneBit(name="f", rate=0.01, bits=[30])
    sites = model.select(find_sites(protected, chosen, images[:2])[fault_pass])
    plan = model.plan(sites, len(images), 5, "k", 0, 24)

    def draw(part: pa.Table) -> Hits:
        return model.hits(sites, part, 5, "k")

    found = ReferenceExecutor(pipeline, sites, fault_pass, images, 8, draw).run(plan)
    hits = draw(plan)
    # in this network conv "0" feeds ReLU "1", and conv "2.conv" ReLU "2.relu", one to one; the
    # input of the block is added there, so values of conv "0" arrive, too
    low, high = ranges.low, ranges.high
    assert set(low) == {("1", 0), ("2.relu", 0)}
    corrected_hit, hits_corrected = np.zeros(24, int), np.zeros(24, int)
    for row in range(24):
        image = images[plan["sample_index"][row].as_py()][None]
        if fault_pass == "second_forward":
            image = chosen.detect(protected, image.repeat(8, 1, 1, 1)).perturbed[:1]
        mine = [(sites[s].layer, int(n)) for r, s, n, _ in zip(*hits[:4], strict=True) if r == row]
        first = network[0](image).flatten()
        for layer, neuron in mine:
            if layer == "0":
                first[neuron] = flip30(first[neuron])
        first = torch.relu(first)
        over = [(first > high["1", 0]) | (first < low["1", 0]) | first.isnan()]
        clipped = torch.where(first.isnan(), 0.0, first.clamp(low["1", 0], high["1", 0]))
        clipped = clipped.view(1, 4, 8, 8)
        inner = network[2].conv(clipped).flatten()
        for layer, neuron in mine:
            if layer == "2.conv":
                inner[neuron] = flip30(inner[neuron])
        second = torch.relu(clipped + network[2].norm(inner.view(1, 4, 8, 8))).flatten()
        high_2 = high["2.relu", 0]
        over.append((second > high_2) | (second < low["2.relu", 0]) | second.isnan())
        places = set()
        for layer, neuron in mine:
            at = {"0": (0, 1), "2.conv": (1,)}.get(layer, ())
            caught = {(place, neuron) for place in at if over[place][neuron]}
            hits_corrected[row] += bool(caught)
            places |= caught
        corrected_hit[row] = len(places)
        assert found["corrected"][row] >= sum(int(o.sum()) for o in over)
    np.testing.assert_array_equal(found["corrected_hit"], corrected_hit)
    np.testing.assert_array_equal(found["hits_corrected"], hits_corrected)
    assert corrected_hit.sum() > 5
    assert (found["flagged"] == (found["corrected"] > 0)).all()


def flip30(value: Tensor) -> Tensor:
    return (value.view(torch.int32) ^ (1 << 30)).view(torch.float32)


def test_no_masks_where_none_are_watched(images: Tensor) -> None:
    network = tiny_network()
    protection = RangeRestriction(name="clip")
    protected = protection.protect(network, protection.fit(network, labelled([images])))
    pipeline = CorrectedPipeline(protected, NoMethod(name="none"), RangeTable(), network)
    pipeline.watched = {"backward"}
    seen = pipeline(images[:4])
    assert seen.flagged is not None
    nothing = Hits(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0, np.uint32))
    scores = pipeline.scores([], nothing, images[:4])
    assert scores.corrected_hit.tolist() == [0] * 4
