"""Correcting Ranger: bounds against NumPy, what becomes of each value."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import labelled, tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.protections.correcting import corrected_masks, keep_masks, protected_evidence
from progip.protections.float_histogram import FloatHistogram
from progip.protections.range_restriction import RangeRestriction

INF, NAN = float("inf"), float("nan")
STATE = {"0#0/range": torch.tensor([-1.0, 2.0])}
VALUES = [-INF, -3.0, -1.0, 0.0, 2.0, 2.5, INF, NAN]


class Handed(nn.Module):
    """An activation that hands its input on, so that a test chooses its output."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("action", "nan_policy", "expected", "zeroed"),
    [
        ("clip", "zero", [-1, -1, -1, 0, 2, 2, 2, 0], 5),
        ("clip", "upper", [-1, -1, -1, 0, 2, 2, 2, 2], 5),
        ("clip", "propagate", [-1, -1, -1, 0, 2, 2, 2, NAN], 4),
        ("zero", "zero", [0, 0, -1, 0, 2, 0, 0, 0], 5),
        ("zero", "upper", [0, 0, -1, 0, 2, 0, 0, 2], 5),
        ("zero", "propagate", [0, 0, -1, 0, 2, 0, 0, NAN], 4),
    ],
)
def test_what_becomes_of_each_value(
    action: str, nan_policy: str, expected: list[float], zeroed: int
) -> None:
    protection = RangeRestriction(name="r", action=action, nan_policy=nan_policy)
    network = protection.protect(nn.Sequential(Handed()), STATE)
    keep_masks(network)
    inside = [0.5] * len(VALUES)
    result = network(torch.tensor([VALUES, inside]))
    torch.testing.assert_close(result, torch.tensor([expected, inside]), equal_nan=True)
    evidence = protected_evidence(network)
    assert evidence["flagged"].tolist() == [True, False]
    assert evidence["zeroed"].tolist() == [zeroed, 0]
    (mask,) = corrected_masks(network).values()
    changed = [v != e and e == e for v, e in zip(VALUES, expected, strict=True)]
    assert mask.tolist() == [changed, [False] * len(VALUES)]


def test_only_nan_is_an_alarm_too() -> None:
    network = RangeRestriction(name="r", nan_policy="propagate").protect(
        nn.Sequential(Handed()), STATE
    )
    network(torch.tensor([[NAN], [1.0]]))
    assert protected_evidence(network)["flagged"].tolist() == [True, False]
    assert protected_evidence(network)["zeroed"].tolist() == [0, 0]


def test_bounds_are_the_clean_extremes_and_followers_have_them_too(images: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten()
    ).eval()
    first = torch.relu(network[0](images))
    second = torch.tanh(network[3](network[2](first)))
    state = RangeRestriction(name="r").fit(network, labelled(images.split([7, 1, 32])))
    relu, tanh = [0.0, first.max().item()], [second.min().item(), second.max().item()]
    expected = {"1#0": relu, "2#0": relu, "4#0": tanh, "5#0": tanh}
    assert state.keys() == {f"{call}/range" for call in expected}
    for call, bounds in expected.items():
        assert state[f"{call}/range"].tolist() == pytest.approx(bounds, abs=1e-6)


@pytest.mark.parametrize("action", ["clip", "zero"])
def test_profiled_images_pass_untouched(action: str, images: Tensor) -> None:
    network = tiny_network()
    protection = RangeRestriction(name="r", action=action)
    protected = protection.protect(network, protection.fit(network, labelled([images])))
    assert torch.equal(protected(images), network(images))
    assert not protected_evidence(protected)["flagged"].any()
    protected(images * 5)
    assert protected_evidence(protected)["flagged"].any()


def test_a_part_of_the_images_gives_narrower_bounds(images: Tensor) -> None:
    network = tiny_network()
    whole = RangeRestriction(name="r").fit(network, labelled(images.split(4)))
    part = RangeRestriction(name="r", share=0.2).fit(network, labelled(images.split(4)))
    again = RangeRestriction(name="r", share=0.2).fit(network, labelled(images.split(4)))
    assert whole.keys() == part.keys()
    assert all(torch.equal(part[key], again[key]) for key in part)
    assert all(bool(part[key][1] <= whole[key][1]) for key in part)
    assert any(bool(part[key][1] < whole[key][1]) for key in part)


def test_coverage_leaves_the_share_of_values_outside(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()).eval()
    state = RangeRestriction(name="r", coverage=0.9).fit(network, labelled(images.split(9)))
    low, high = np.quantile(network(images).detach().numpy(), [0.1, 0.9])
    assert state["1#0/range"].tolist() == pytest.approx([low, high], rel=4e-3)


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1),
    share=st.floats(0, 1),
)
def test_quantile_of_a_histogram(values: list[float], share: float) -> None:
    histogram = FloatHistogram(torch.device("cpu"))
    for part in torch.tensor(values).split(3):
        histogram.add(part)
    exact = np.quantile(np.float32(values), share, method="inverted_cdf")
    low, high = (histogram.quantile(share, upper=upper) for upper in (False, True))
    assert low <= exact <= high
    assert high - low <= abs(exact) / 256 + 1e-38


@pytest.mark.parametrize(
    "options",
    [{"action": "cut"}, {"nan_policy": "lower"}, {"share": 0.0}, {"share": 1.5}, {"coverage": 0.5}],
)
def test_wrong_options(options: dict) -> None:
    with pytest.raises(ProgipError, match="protection 'r'"):
        RangeRestriction(name="r", **options)


def test_what_cannot_be_profiled_is_refused(images: Tensor) -> None:
    protection = RangeRestriction(name="r")
    with pytest.raises(ProgipError, match="at least 1 training image"):
        protection.fit(tiny_network(), labelled([]))
    with pytest.raises(ProgipError, match="not finite"):
        protection.fit(tiny_network(), labelled([images * INF]))
    with pytest.raises(ProgipError, match="another network"):
        protection.protect(tiny_network(), STATE | {"stem#0/range": torch.zeros(2)})
