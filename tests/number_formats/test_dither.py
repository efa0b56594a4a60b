"""Stochastic rounding: right on average, at most one step away, and values of codes stay."""

import math
from bisect import bisect_right
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from progip.number_formats.adaptive_fp import AdaptiveFP
from progip.number_formats.base import NumberFormat
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.fixed_point import FixedPoint
from progip.number_formats.ieee import Ieee
from progip.number_formats.integer import Integer

RANGE = 3.5  # all of these formats have larger values
REGISTER = {"block_fp": 1 + 7, "adaptive_fp": 7 - 1}  # for E = 1
FORMATS: list[NumberFormat] = [
    Ieee(name="ieee", exponent=3, fraction=2),
    Ieee(name="fp16", exponent=5, fraction=10),
    Ieee(name="e4m3", exponent=4, fraction=3, finite=True),
    FixedPoint(name="fixed", word=8, fraction=4),
    FixedPoint(name="truncated", word=8, fraction=4, truncate=True),
    Integer(name="integer", width=8, scale=5.5),
    BlockFP(name="block_fp", width=9, exponent=4),
    AdaptiveFP(name="adaptive_fp", width=9, exponent=4),
]


def register(form: NumberFormat) -> torch.Tensor | None:
    return torch.tensor([REGISTER[form.name]]).int() if form.name in REGISTER else None


def values_of(form: NumberFormat) -> list[float]:
    values = form.decode(torch.arange(2**form.bits, dtype=torch.int32), register(form))
    found: list[float] = values[values.isfinite()].unique().tolist()
    return found


VALUES = {form.name: values_of(form) for form in FORMATS}


def lost(form: NumberFormat, x: float) -> bool:
    """Below the smallest magnitude that a block keeps."""
    smallest = {"block_fp": 2.0**-6, "adaptive_fp": 2.0**-12}.get(form.name, 0.0)
    return abs(x) < smallest


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(
    st.floats(-RANGE, RANGE, width=32) | st.floats(-(2.0**-5), 2.0**-5, width=32),
    st.floats(0, 1, width=32, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_down_below_one_less_the_dither(form: NumberFormat, x: float, dither: float) -> None:
    values = VALUES[form.name]
    place = bisect_right(values, x)
    below, above = Fraction(values[place - 1]), Fraction(values[place])
    up = (Fraction(x) - below) / (above - below) >= 1 - Fraction(dither)
    expected = above if up else below
    found = form.quantised(torch.tensor([x]), register(form), torch.tensor([dither])).item()
    assert found == (0 if lost(form, x) else float(expected))


def test_up_from_one_less_the_dither_on() -> None:
    steps = torch.tensor([0.25, 0.25, -0.25, -0.25, -2.5, 3.75])
    dither = torch.tensor([0.75, 0.75 - 2.0**-24, 0.25, 0.25 - 2.0**-24, 0.5, 0.25])
    found = FORMATS[3].quantised(steps / 16, None, dither) * 16
    assert found.tolist() == [1, 0, 0, -1, -2, 4]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("x", [1.03, -1.03, 0.171, -0.171, 2.9, -0.0301, 0.017])
def test_right_on_average(form: NumberFormat, x: float) -> None:
    x = torch.tensor(x).item()
    values = VALUES[form.name]
    place = bisect_right(values, x)
    below, above = values[place - 1], values[place]
    n = 40_000
    dither = torch.rand(n, generator=torch.Generator().manual_seed(3))
    found = form.quantised(torch.full((n,), x), register(form), dither)
    assert set(found.tolist()) == {below, above}
    part = (x - below) / (above - below)
    sigma = (above - below) * math.sqrt(part * (1 - part) / n)
    assert abs(found.double().mean().item() - x) < 4 * sigma


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_values_of_the_format_stay(form: NumberFormat) -> None:
    codes = torch.arange(2**form.bits, dtype=torch.int32)
    draw = torch.Generator().manual_seed(4)
    kept = form.decode(codes, register(form))
    kept = form.quantised(kept, register(form))  # without those that faults alone lead to
    kept = kept[~kept.isnan()]
    ends = (torch.zeros(len(kept)), torch.full((len(kept),), 1 - 2.0**-24))
    for dither in (*(torch.rand(len(kept), generator=draw) for _ in range(20)), *ends):
        found = form.quantised(kept, register(form), dither)
        assert torch.equal(found.view(torch.int32), kept.view(torch.int32))


def test_what_is_too_large_or_no_number() -> None:
    some = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e9, -1e9])
    dither = torch.full((5,), 0.5)
    fp16, e4m3, fixed = (
        form.quantised(some, None, dither) for form in (FORMATS[1], FORMATS[2], FORMATS[3])
    )
    assert fp16[[0, 1, 3, 4]].tolist() == [torch.inf, -torch.inf, torch.inf, -torch.inf]
    assert fp16[2].isnan()
    assert e4m3.isnan().all()
    assert fixed.tolist() == [7.9375, -8, 0, 7.9375, -8]
