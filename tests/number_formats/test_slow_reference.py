"""Formats against definitions in plain fractions: the nearest of all values, found by search."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from progip.number_formats.adaptive_fp import AdaptiveFP
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.ieee import Ieee
from progip.number_formats.integer import Integer

TWO = Fraction(2)
MOST = float(np.finfo(np.float32).max)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR_ONE = st.floats(-64, 64, width=32)


def nearest(x: Fraction, values: list[Fraction]) -> int:
    """Which of sorted values, of codes 0, 1, ..., is nearest; ties to the even code."""
    return min(range(len(values)), key=lambda code: (abs(values[code] - x), code % 2))


def power(x: Fraction) -> int:
    """floor(log2 x)."""
    found = len(bin(x.numerator)) - len(bin(x.denominator))
    return found if TWO**found <= x else found - 1


def plain(code: int, exponent: int, fraction: int) -> Fraction:
    field, part = code >> fraction, Fraction(code % 2**fraction, 2**fraction)
    bias = 2 ** (exponent - 1) - 1
    return part * TWO ** (1 - bias) if field == 0 else (1 + part) * TWO ** (field - bias)


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (4, 3), (2, 1), (5, 1)])
@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("saturate", [False, True])
def test_ieee(size: tuple[int, int], finite: bool, saturate: bool) -> None:
    exponent, fraction = size
    form = Ieee(name="x", exponent=exponent, fraction=fraction, finite=finite, saturate=saturate)
    numbers = 2 ** (exponent + fraction) - (1 if finite else 2**fraction)
    values = [plain(code, exponent, fraction) for code in range(numbers + 1)]  # one is too large
    halfway = [(one + two) / 2 for one, two in pairwise(values)]
    points = np.array([float(x) for x in values + halfway], dtype=np.float32)
    below, above = (np.nextafter(points, np.float32(to)) for to in (0, np.inf))
    some = np.concatenate([points, below, above, points * 3, points / 3]).astype(np.float32)
    some = np.concatenate([some, -some, np.float32([MOST, -MOST, 1e-45, -1e-45])])
    ours = form.quantised(torch.from_numpy(some)).numpy()
    for x, found in zip(some.tolist(), ours.tolist(), strict=True):
        code = nearest(abs(Fraction(x)), values)
        if code < numbers or saturate:
            expected = float(values[min(code, numbers - 1)])
        else:
            expected = np.nan if finite else np.inf
        np.testing.assert_equal(abs(found), expected)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(some))


def block_values(row: list[float], width: int, exponent: int) -> list[float]:
    m = width - 1 - exponent
    lowest, highest = 2 - 2 ** (exponent - 1), 2 ** (exponent - 1) - 1
    exact = [Fraction(x) if abs(Fraction(x)) >= TWO**lowest else Fraction(0) for x in row]
    largest = max(abs(x) for x in exact)
    shared = min(power(largest), highest) if largest else lowest
    values = [steps * TWO ** (shared - m) for steps in range(2 ** (m + 1))]
    return [float(values[nearest(abs(x), values)] * (1 if x > 0 else -1)) for x in exact]


def adaptive_values(row: list[float], width: int, exponent: int) -> list[float]:
    m = width - 1 - exponent
    largest = max(abs(Fraction(x)) for x in row)
    centre = 2 ** (exponent - 1) - 1
    top = max(power(largest), centre - 127) if largest else centre - 127
    low = top - (2**exponent - 3)
    values = [
        (1 + Fraction(part, 2**m)) * TWO**at for at in range(low, top + 1) for part in range(2**m)
    ]
    found = []
    for x in map(Fraction, row):
        size = values[nearest(abs(x), values)] if abs(x) >= values[0] else Fraction(0)
        found.append(float(size * (1 if x > 0 else -1)))
    return found


@pytest.mark.parametrize(
    ("kind", "reference"), [(BlockFP, block_values), (AdaptiveFP, adaptive_values)]
)
@pytest.mark.parametrize("size", [(8, 4), (8, 3), (6, 2), (7, 5), (10, 4)])
@given(st.lists(NEAR_ONE, min_size=1, max_size=6) | st.lists(FLOATS, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_blocks(kind, reference, size: tuple[int, int], row: list[float]) -> None:
    form = kind(name="x", width=size[0], exponent=size[1])
    ours = form.quantised(torch.tensor([row]))
    expected = torch.tensor([reference(row, *size)])
    assert ours.tolist() == expected.tolist()
    assert torch.equal(torch.signbit(ours), torch.signbit(torch.tensor([row])))
    assert torch.equal(form.metadata(ours), form.metadata(torch.tensor([row])))


@pytest.mark.parametrize("width", [2, 4, 8, 16])
@given(st.lists(FLOATS | NEAR_ONE, min_size=1), st.floats(2.0**-100, MOST, width=32))
@settings(max_examples=80, deadline=None)
def test_integers(width: int, drawn: list[float], scale: float) -> None:
    form = Integer(name="x", width=width, scale=scale)
    half, step = 2 ** (width - 1), Fraction(scale) / 2 ** (width - 1)
    ties = [float((n + Fraction(1, 2)) * step) for n in range(-3, 3)]
    some = drawn + [float(np.float32(x)) for x in ties if abs(x) <= MOST]
    codes = [min(max(round(Fraction(x) / step), -half), half - 1) for x in some]
    expected = [float(np.float32(float(code * step))) for code in codes]
    ours = form.quantised(torch.tensor(some))
    assert ours.tolist() == expected
    assert form.encode(ours).tolist() == [code % (2 * half) for code in codes]
    assert torch.equal(form.decode(form.encode(ours)), ours)


@pytest.mark.parametrize("kind", [BlockFP, AdaptiveFP])
def test_registers_of_blocks(kind) -> None:
    rows = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    rows *= (
        2.0 ** torch.arange(-2, 2)[:, None, None, None] * torch.tensor([1, 4, 16])[:, None, None]
    )
    sample, channel, tensor = (
        kind(name="x", width=10, exponent=5, block=block)
        for block in ("sample", "channel", "tensor")
    )
    alone = [sample.metadata(row[None]) for row in rows]
    assert torch.equal(sample.metadata(rows), torch.cat(alone))
    by_channel = torch.stack([sample.metadata(row) for row in rows])[:, :, 0]
    assert torch.equal(channel.metadata(rows), by_channel)
    assert len(by_channel.unique()) > 3
    whole = sample.metadata(rows.flatten()[None])
    assert torch.equal(tensor.metadata(rows), whole.expand(4, 1))
    assert torch.equal(channel.metadata(rows.flatten(1)), sample.metadata(rows))
    expected = torch.stack([sample.quantised(row) for row in rows])
    assert torch.equal(channel.quantised(rows), expected)
    assert sample.metadata(rows[:0]).shape == (0, 1)
    assert torch.equal(
        sample.quantised(rows[0, 0, 0]), sample.quantised(rows[0, 0, 0, :, None])[:, 0]
    )


def test_what_is_no_number() -> None:
    odd = torch.tensor([[torch.nan, 1.0], [torch.inf, 0.0], [-torch.inf, torch.nan], [0.0, -0.0]])
    block = BlockFP(name="x", width=8, exponent=3)
    most = 2.0**3 * (2 - 2.0**-4)
    assert block.quantised(odd).tolist() == [[0, 1], [most, 0], [-most, 0], [0, 0]]
    assert block.metadata(odd).flatten().tolist() == [3, 6, 6, 1]  # all zero: the lowest
    adaptive = AdaptiveFP(name="x", width=8, exponent=3)
    most = 2.0**127 * (2 - 2.0**-4)
    assert adaptive.quantised(odd).tolist() == [[0, 1], [most, 0], [-most, 0], [0, 0]]
    assert adaptive.metadata(odd).flatten().tolist() == [3, 256 - 124, 256 - 124, 127]
    integer = Integer(name="x", width=4, scale=8.0)
    assert integer.quantised(odd).tolist() == [[0, 1], [7, 0], [-8, 0], [0, 0]]
    assert not torch.signbit(integer.quantised(odd)[3]).any()
