"""Formats against other implementations: ml_dtypes, NumPy, fxpmath and GoldenEye's numbers."""

import ml_dtypes
import numpy as np
import pytest
import torch
from fxpmath import Fxp
from hypothesis import given, settings
from hypothesis import strategies as st

from progip.number_formats.adaptive_fp import AdaptiveFP
from progip.number_formats.base import NumberFormat
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.fixed_point import FixedPoint
from progip.number_formats.ieee import Ieee

OTHERS = [
    (4, 3, True, ml_dtypes.float8_e4m3fn),
    (5, 2, False, ml_dtypes.float8_e5m2),
    (4, 3, False, ml_dtypes.float8_e4m3),
    (3, 4, False, ml_dtypes.float8_e3m4),
    (8, 7, False, ml_dtypes.bfloat16),
    (5, 10, False, np.float16),
    (8, 23, False, np.float32),
]


@st.composite
def words(draw: st.DrawFn) -> int:
    """A float32 word of any kind, often halfway between values of a shorter fraction, or nearly."""
    sign, exponent = draw(st.integers(0, 1)), draw(st.integers(0, 255) | st.integers(100, 150))
    fraction = draw(st.integers(0, 2**23 - 1))
    kept = draw(st.integers(0, 23))
    low = 23 - kept
    near = draw(st.sampled_from([None, 0, -1, 1]))
    if near is not None and low:
        fraction = (fraction >> low << low) + (1 << (low - 1)) + near
    return (sign << 31) | (exponent << 23) | max(0, min(fraction, 2**23 - 1))


WORDS = st.lists(st.integers(0, 2**32 - 1) | words(), min_size=1, max_size=300)


def floats(drawn: list[int]) -> np.ndarray:
    return np.array(drawn, dtype=np.uint32).view(np.float32)


def cast(values: np.ndarray, kind: type) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(kind)


@pytest.mark.parametrize(("exponent", "fraction", "finite", "kind"), OTHERS)
@given(WORDS)
@settings(max_examples=150, deadline=None)
def test_casts(exponent: int, fraction: int, finite: bool, kind: type, drawn: list[int]) -> None:
    form = Ieee(name="x", exponent=exponent, fraction=fraction, finite=finite)
    values = floats(drawn)
    theirs = cast(values, kind)
    unsigned = theirs.view(f"u{theirs.itemsize}").astype(np.int64)
    ours = form.quantised(torch.from_numpy(values))
    nan = np.isnan(values) | np.isnan(theirs.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(ours.numpy()), nan)
    codes = form.encode(ours).numpy().astype(np.int64) & 0xFFFFFFFF
    np.testing.assert_array_equal(codes[~nan], unsigned[~nan])
    np.testing.assert_array_equal(  # bits: zeros have signs
        ours.numpy()[~nan].view(np.uint32), theirs.astype(np.float32)[~nan].view(np.uint32)
    )
    assert form.decode(form.encode(ours)).isnan().numpy().tolist() == nan.tolist()


@pytest.mark.parametrize(("exponent", "fraction", "finite", "kind"), OTHERS)
def test_every_code_means_the_same(exponent: int, fraction: int, finite: bool, kind: type) -> None:
    form = Ieee(name="x", exponent=exponent, fraction=fraction, finite=finite)
    size = np.dtype(kind).itemsize
    rng = np.random.default_rng(1)
    codes = np.arange(2**form.bits) if size < 4 else rng.integers(0, 2**32, 10000)
    theirs = codes.astype(f"u{size}").view(kind).astype(np.float32)
    ours = form.decode(torch.from_numpy(codes.astype(np.uint32).view(np.int32)))
    np.testing.assert_array_equal(ours.numpy(), theirs)
    np.testing.assert_array_equal(np.signbit(ours.numpy()), np.signbit(theirs))


@pytest.mark.parametrize(("exponent", "fraction", "finite", "kind"), OTHERS)
@given(WORDS)
@settings(max_examples=50, deadline=None)
def test_saturation(
    exponent: int, fraction: int, finite: bool, kind: type, drawn: list[int]
) -> None:
    form = Ieee(name="x", exponent=exponent, fraction=fraction, finite=finite, saturate=True)
    values = floats(drawn)
    most = np.float32(ml_dtypes.finfo(kind).max)
    theirs = cast(np.clip(values, -most, most), kind).astype(np.float32)
    np.testing.assert_array_equal(form.quantised(torch.from_numpy(values)).numpy(), theirs)


SIZES = [(16, 8), (12, 6), (8, 3), (4, 2), (8, 0), (32, 16), (24, 20), (32, 31), (2, 1)]


@pytest.mark.parametrize(("word", "fraction"), SIZES)
@pytest.mark.parametrize("rounding", ["around", "trunc"])
@given(
    st.lists(st.floats(-300, 300, width=32) | st.floats(-1e6, 1e6, width=32), min_size=1),
    st.lists(st.integers(-(2**12), 2**12), min_size=1),
)
@settings(max_examples=60, deadline=None)
def test_fixed_point(
    word: int, fraction: int, rounding: str, drawn: list[float], halves: list[int]
) -> None:
    form = FixedPoint(name="x", word=word, fraction=fraction, truncate=rounding == "trunc")
    ties = np.array(halves) * 2.0 ** -(fraction + 1)
    values = np.concatenate([drawn, ties]).astype(np.float32)
    theirs = Fxp(
        values.astype(np.float64), True, word, fraction, rounding=rounding, overflow="saturate"
    )
    ours = form.quantised(torch.from_numpy(values))
    np.testing.assert_array_equal(ours.numpy(), np.asarray(theirs.get_val()).astype(np.float32))
    codes = form.encode(ours).numpy().astype(np.int64) & (2**word - 1)
    np.testing.assert_array_equal(codes, np.asarray(theirs.raw()).astype(np.int64) & (2**word - 1))


X = [1, -0.3, 0.06, 5.7]


@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        (BlockFP(name="x", width=8, exponent=3), X, [1, -0.25, 0, 5.75]),
        (BlockFP(name="x", width=12, exponent=4), X, [1, -0.3125, 0.0625, 5.6875]),
        (AdaptiveFP(name="x", width=8, exponent=4), X, [1, -0.3125, 0.05859375, 5.5]),
        (AdaptiveFP(name="x", width=8, exponent=3), X, [1, -0.296875, 0, 5.75]),
        (
            FixedPoint(name="x", word=8, fraction=4),
            [*X, 9, -9],
            [1, -0.3125, 0.0625, 5.6875, 7.9375, -8],
        ),
    ],
)
def test_numbers_worked_out_by_hand(
    form: NumberFormat, values: list[float], expected: list[float]
) -> None:
    assert form.quantised(torch.tensor([values])).tolist() == [expected]
