"""Ranges in every forward pass of a detector of several steps, against plain hooks."""

import math

import pytest
import torch
from test_incremental import images_of
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.deploy.detector import GuardedDetector
from progip.deploy.range_checks import FusedRangeChecks, LayerRangeChecks, RangeChecks
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable, profiling
from progip.ood_methods.pro import PRO
from progip.protections.ranger import Ranger

STEPS = 3
METHOD = PRO(name="pro", steps=STEPS, epsilon=0.4, confidence="entropy")


def profiled() -> tuple[nn.Module, RangeTable]:
    network, calm = tiny_network(), images_of(40, seed=2)
    with profiling(network, calm[:2]) as ranges:
        network(calm)
    return network, ranges


def by_plain_hooks(network: nn.Module, ranges: RangeTable, images: Tensor) -> Tensor:
    """(forward passes, B) excess of the worst call of each image in each pass."""
    passes: list[dict[str, Tensor]] = []
    handles = [network.register_forward_pre_hook(lambda *_: passes.append({}))]
    for name, module in network.named_modules():
        if name in ranges.layers:
            handles.append(
                module.register_forward_hook(
                    lambda _, __, out, name=name: passes[-1].update({name: out.detach().clone()})
                )
            )
    METHOD.detect(network, images)
    for handle in handles:
        handle.remove()
    worst = []
    for outputs in passes:
        found = []
        for site in ranges.sites:
            low, high = (torch.tensor(limit) for limit in ranges.limits(site))
            values = outputs[site[0]].flatten(1)
            found.append(((values - high) / (high - low)).amax(1))
            found.append(((low - values) / (high - low)).amax(1))
        worst.append(torch.stack(found).amax(0))
    return torch.stack(worst)


def test_every_forward_pass_is_checked() -> None:
    network, ranges = profiled()
    images = images_of(30)
    expected = by_plain_hooks(network, ranges, images)
    assert len(expected) == STEPS + 1
    seen = Pipeline(network, METHOD, ranges)(images)
    torch.testing.assert_close(seen.excess_first.amax(1), expected[0], rtol=1e-5, atol=1e-6)
    later = seen.excess_second.amax(1)
    torch.testing.assert_close(later, expected[1:].amax(0), rtol=1e-5, atol=1e-6)
    assert (later > expected[-1] + 1e-3).any()  # the last pass alone does not tell


@pytest.mark.parametrize("form", [FusedRangeChecks, LayerRangeChecks])
def test_a_deployed_detector_checks_the_same(form: type[RangeChecks]) -> None:
    network, ranges = profiled()
    images = images_of(30)
    expected = by_plain_hooks(network, ranges, images)
    checks = form(network, ranges, METHOD.passes)
    checks.attach()
    checks.begin(images)
    METHOD.detect(network, images, checks.enter)
    checks.rest()
    checks.detach()
    found = checks.evidence()
    for name, wanted in (("first", expected[0]), ("second", expected[1:].amax(0))):
        excess = found[f"range_excess_{name}"]
        if form is FusedRangeChecks:
            torch.testing.assert_close(excess, wanted, rtol=1e-5, atol=1e-6)
        assert ((excess > 0) == (wanted > 0)).all()
        assert (wanted > 0).sum() > 0


@pytest.mark.parametrize("hit", range(STEPS + 1))
def test_a_fault_in_any_forward_pass_raises_the_alarm(hit: int) -> None:
    """A NaN in one pass alone: what comes after it is computed from the clean value."""
    network, ranges = profiled()
    images = images_of(40, seed=2)[:8] * 0.5  # inside of all ranges, but for the steps
    calls = -1

    def spoil(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls != hit:
            return None
        spoilt = output.clone()
        spoilt[3].flatten()[0] = math.inf
        return spoilt

    method = PRO(name="pro", steps=STEPS, epsilon=0.0)
    options = {"thresholds": {"range_excess": 0.0}, "ood_threshold": 0.0, "ranges": ranges}
    handle = network[1].register_forward_hook(spoil)
    with GuardedDetector(network, method, Ranger(name="ranger"), **options) as detector:
        answer = detector(images)
    calls = -1
    seen = Pipeline(network, method, ranges)(images)
    handle.remove()
    assert answer.alarm.nonzero()[0].tolist() == [3]
    assert answer.stage[3] == ("second_forward" if hit else "first_forward")
    outside = ~((seen.excess_first <= 0) & (seen.excess_second <= 0)).all(1)
    assert outside.nonzero().flatten().tolist() == [3]
