"""Which calls share the range of which activations."""

import pytest
import torch
from tiny_networks import labelled
from torch import Tensor, nn

from progip.batch_axis import BatchAxis
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable, profiling
from progip.errors import ProgipError
from progip.ood_methods.none import NoMethod
from progip.protections.placement import extremes, find_range_sites
from progip.protections.range_restriction import RangeRestriction


class Concatenated(nn.Module):
    """Two activated branches joined and pooled, then joined with a branch without activation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1)
        self.relu, self.tanh = nn.ReLU(), nn.Tanh()
        self.drop, self.pool = nn.Dropout(), nn.MaxPool2d(2)
        self.plain, self.mixed, self.flatten = nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.relu(self.left(x)), self.tanh(self.right(x))
        joined = self.pool(self.drop(torch.cat([left, right], 1)))
        return self.flatten(self.mixed(torch.cat([joined, self.plain(x)], dim=1)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Concatenated().eval().requires_grad_(False)


@pytest.fixture
def sites(network: nn.Module) -> dict[tuple[str, int], tuple[tuple[str, int], ...]]:
    return find_range_sites(network, torch.randn(2, 3, 8, 8))


def test_what_follows_a_concatenation_has_all_its_activations(sites: dict) -> None:
    relu, tanh = ("relu", 0), ("tanh", 0)
    assert sites == {relu: (relu,), tanh: (tanh,), ("pool", 0): (relu, tanh)}


def test_the_widest_bounds_of_all_parts_hold(network: nn.Module) -> None:
    images = torch.randn(30, 3, 8, 8)
    with profiling(network, images) as table:
        network(images)
    relu, tanh = torch.relu(network.left(images)), torch.tanh(network.right(images))
    low, high = table.limits(("pool", 0))
    assert (low, high) == pytest.approx((tanh.min().item(), relu.max().item()), abs=1e-6)
    assert table.limits(("tanh", 0))[1] < high
    assert RangeTable.from_json(table.to_json()) == table


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 3, 3), (6, 2, 7)])
def test_extremes_are_those_of_each_row(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values.view(6, -1)[2, 0] = float("nan")
    rows = values.numpy().reshape(6, -1)
    for found, expected in zip(extremes(values), (rows.min(1), rows.max(1)), strict=True):
        assert found.shape == (6,)
        torch.testing.assert_close(
            found, torch.from_numpy(expected), rtol=0, atol=0, equal_nan=True
        )


class TokensFirst(nn.Module):
    """(tokens, B, width) into the activation, and windows (B * 4, width) into the second."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.windows = nn.GELU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.act(x.flatten(2).permute(2, 0, 1))  # (64, B, 3)
        return self.windows(tokens.permute(1, 0, 2).reshape(-1, 16, 3)).reshape(len(x), -1)


def test_ranges_are_checked_for_each_image_wherever_the_batch_lies() -> None:
    network, images = TokensFirst().eval(), torch.randn(5, 3, 8, 8)
    with profiling(network, images) as table:
        network(images)
    assert table.axis == {("act", 0): BatchAxis(1), ("windows", 0): BatchAxis(group=4)}
    images[3] *= 100
    seen = Pipeline(network, NoMethod(name="none"), table)(images)
    outside = (seen.excess_first > 0).any(1)
    assert outside.tolist() == [False, False, False, True, False]
    assert RangeTable.from_json(table.to_json()) == table


def test_corrections_refuse_tokens_first_by_layer() -> None:
    network, images = TokensFirst().eval(), torch.randn(5, 3, 8, 8)
    protection = RangeRestriction(name="ranger_clip", action="clip")
    with pytest.raises(ProgipError, match=r"'ranger_clip'.*layer 'act'.*axis 1.*batch_first"):
        protection.fit(network, labelled([images]))
