"""Windows of the image, computed alone, give the bits of whole images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incremental import assert_equal, images_of, pipeline_of
from torch import Tensor, nn

from progip.engine.incremental import IncrementalExecutor, Traced, window_trials
from progip.engine.incremental.frames import SIDES, arranged, packed
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.records import PASSES

LAST = torch.channels_last


class Block(nn.Module):
    """One stage: a convolution of some kind, and what joins it with its input."""

    def __init__(self, width: int, kind: str, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        groups = {"depthwise": width, "grouped": 2}.get(kind, 1)
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(
            width, width, kernel, stride, padding, dilation, groups, bias=kind == "plain"
        )
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.kind = kind
        self.down = nn.Conv2d(width, width, 1, stride)
        self.mix = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.kind == "residual":
            y = y + self.down(x)
        elif self.kind == "sliced":
            y = y + x[:, :, :: self.conv.stride[0], :: self.conv.stride[1]]
        y = self.relu(y)
        return self.mix(torch.cat([y, self.down(x)], 1)) if self.kind == "concatenated" else y


class Stages(nn.Module):
    def __init__(self, width: int, stages: list[tuple[str, int, int, int]], pool: str) -> None:
        super().__init__()
        pools = {
            "max": nn.MaxPool2d(3, 2, 1),
            "ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
            "average": nn.AvgPool2d(2),
            "none": nn.Identity(),
        }
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = pools[pool]
        self.body = nn.Sequential(*(Block(width, *stage) for stage in stages))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.pool(self.relu(self.stem(x))))
        return self.head(x.mean((2, 3)))


def network_of(
    width: int, stages: list[tuple[str, int, int, int]], pool: str, seed: int
) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Stages(width, stages, pool)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.running_mean, std=0.2)
    return network.eval().requires_grad_(False).to(memory_format=LAST)


def compare(network: nn.Module, size: int, runs: int, batch: int = 4, seed: int = 0) -> int:
    """Both executors in every pass; how many windows were computed."""
    images = images_of(batch + 1, size, seed).contiguous(memory_format=LAST)
    pipeline = pipeline_of(network, images)
    traced = Traced(pipeline, images[:batch])
    sites = find_sites(network, pipeline.method, images[:2])
    types = ["Conv2d", "Linear", "ReLU", "BatchNorm2d", "MaxPool2d"]
    for fault_pass in PASSES:
        model = SingleBitFlip(name="flip", layer_types=types)
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(images), seed, fault_pass, 0, runs)
        expected = ReferenceExecutor(pipeline, chosen, fault_pass, images, batch).run(plan)
        executor = IncrementalExecutor(traced, chosen, fault_pass, images, windows=True)
        assert executor.schedule.windowed
        assert_equal(expected, executor.run(plan))
    proofs = window_trials._PROVED[traced]
    return sum(proofs.values())


KINDS = ["plain", "depthwise", "grouped", "residual", "sliced", "concatenated"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stage_equals_the_reference(kind: str) -> None:
    network = network_of(8, [(kind, 3, 1, 1), (kind, 3, 2, 1)], "none", 3)
    assert compare(network, 64, 60) > 10


@pytest.mark.parametrize("pool", ["max", "ceil", "average"])
def test_every_kind_of_pool_equals_the_reference(pool: str) -> None:
    assert compare(network_of(8, [("plain", 3, 1, 1)], pool, 4), 66, 60) > 5


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    width=st.sampled_from([6, 8, 16]),
    stages=st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from([1, 3, 5]),
            st.sampled_from([1, 2]),
            st.sampled_from([1, 2]),
        ),
        min_size=1,
        max_size=3,
    ),
    pool=st.sampled_from(["max", "ceil", "average", "none"]),
    size=st.sampled_from([64, 97, 128]),
    seed=st.integers(0, 2**16),
)
def test_random_networks_equal_the_reference(
    width: int, stages: list[tuple[str, int, int, int]], pool: str, size: int, seed: int
) -> None:
    compare(network_of(width, stages, pool, seed), size, 60, seed=seed)


def test_an_operation_that_fails_its_trial_is_executed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def refuse(self: object, step: object, *rest: object) -> bool:
        tried.append(1)
        return False

    monkeypatch.setattr(window_trials.Trials, "_try", refuse)
    assert compare(network_of(8, [("residual", 3, 1, 1)], "max", 5), 64, 40) == 0
    assert tried


@given(sides=st.lists(st.integers(1, 300), min_size=1, max_size=200))
def test_packs_hold_every_window_once(sides: list[int]) -> None:
    needed = np.sort(np.array(sides))[::-1]
    covered = 0
    for start, stop, lanes, side in packed(needed):
        assert start == covered
        assert stop - start <= lanes
        assert side >= needed[start]
        assert side in SIDES or side == max(sides)
        covered = stop
    assert covered == len(sides)


@given(data=st.data(), height=st.integers(3, 90), width=st.integers(3, 90))
def test_frames_hold_the_boxes_of_their_runs(data: st.DataObject, height: int, width: int) -> None:
    count = data.draw(st.integers(1, 50))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    top, left = rng.integers(0, height, count), rng.integers(0, width, count)
    bottom, right = rng.integers(top + 1, height + 1), rng.integers(left + 1, width + 1)
    runs = rng.permutation(count)
    seen = []
    for frame, members in arranged(runs, (top, left, bottom, right), (height, width)):
        lanes = slice(0, frame.count)
        assert (frame.runs[lanes] == runs[members]).all()
        assert (frame.y >= 0).all()
        assert (frame.y + frame.h <= height).all()
        assert (frame.x >= 0).all()
        assert (frame.x + frame.w <= width).all()
        assert (frame.y[lanes] <= top[members]).all()
        assert (frame.x[lanes] <= left[members]).all()
        assert (frame.y[lanes] + frame.h >= bottom[members]).all()
        assert (frame.x[lanes] + frame.w >= right[members]).all()
        seen += runs[members].tolist()
    assert sorted(seen) == list(range(count))
