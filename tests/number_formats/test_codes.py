"""Every code, one by one, of formats of up to 16 bits; what they mean; options refused."""

import pytest
import torch

from progip.contracts import check_number_format
from progip.errors import ProgipError
from progip.number_formats.adaptive_fp import AdaptiveFP
from progip.number_formats.base import NumberFormat
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.fixed_point import FixedPoint
from progip.number_formats.ieee import Ieee
from progip.number_formats.integer import Integer


def ieee(exponent: int, fraction: int, **options: bool) -> Ieee:
    return Ieee(name="ieee", exponent=exponent, fraction=fraction, **options)


def fixed(word: int, fraction: int, **options: bool) -> FixedPoint:
    return FixedPoint(name="fixed", word=word, fraction=fraction, **options)


def integer(width: int, scale: float | None = 5.7) -> Integer:
    return Integer(name="integer", width=width, scale=scale)


def block(width: int, exponent: int, of: str = "sample") -> BlockFP:
    return BlockFP(name="block", width=width, exponent=exponent, block=of)


def adaptive(width: int, exponent: int, of: str = "sample") -> AdaptiveFP:
    return AdaptiveFP(name="adaptive", width=width, exponent=exponent, block=of)


def every(number_format: NumberFormat) -> torch.Tensor:
    return torch.arange(2**number_format.bits, dtype=torch.int32)


IEEE = [ieee(*size) for size in ((5, 10), (8, 7), (5, 2), (4, 3), (2, 1), (3, 2), (2, 13))]
FINITE = [ieee(4, 3, finite=True), ieee(3, 2, finite=True), ieee(2, 1, finite=True)]
FIXED = [fixed(*size) for size in ((16, 8), (12, 6), (8, 3), (4, 2), (8, 0), (2, 1))]
INTEGERS = [integer(width) for width in (2, 4, 8, 12, 16)]
BLOCKS = [block(8, 3), block(12, 4), block(16, 5), block(10, 8), block(4, 2)]
ADAPTIVE = [adaptive(8, 4), adaptive(8, 3), adaptive(12, 4), adaptive(16, 5), adaptive(4, 2)]
LONG = [ieee(8, 23), fixed(32, 16), fixed(24, 23), block(32, 8), adaptive(32, 8), adaptive(16, 8)]


@pytest.mark.parametrize("form", [*IEEE, *FINITE, *FIXED, *INTEGERS], ids=str)
def test_every_code_is_that_of_its_value(form: NumberFormat) -> None:
    codes = every(form)
    values = form.decode(codes)
    assert torch.equal(form.encode(values), codes)  # NaN keeps its payload, too
    numbers = values[~values.isnan()]
    assert torch.equal(form.quantised(numbers).view(torch.int32), numbers.view(torch.int32))
    assert len(numbers.view(torch.int32).unique()) == len(numbers)


@pytest.mark.parametrize("form", BLOCKS, ids=str)
def test_every_code_under_every_register(form: BlockFP) -> None:
    codes = every(form)[None]
    registers = torch.arange(1, 2**form.exponent - 1, dtype=torch.int32)[:, None]
    values = form.decode(codes, registers)
    assert torch.equal(form.encode(values, registers), codes.expand(len(registers), -1))
    wrong = torch.tensor([[0], [2**form.exponent - 1]], dtype=torch.int32)
    assert form.decode(codes, wrong).isfinite().all()


@pytest.mark.parametrize("form", ADAPTIVE, ids=str)
def test_every_code_but_other_zeros(form: AdaptiveFP) -> None:
    codes, registers = every(form), torch.tensor([[0], [5], [0x7F - 2 * 16], [0x80 + 64]])
    values = form.decode(codes[None], registers.int())
    back = form.encode(values, registers.int())
    field = (codes >> form.mantissa) & (2**form.exponent - 1)
    expected = torch.where(field == 0, codes & 2 ** (form.width - 1), codes)
    assert torch.equal(back, expected.expand_as(back))
    assert (values[:, field == 0] == 0).all()
    assert (values[:, field != 0] != 0).all()
    all_registers = torch.arange(256, dtype=torch.int32)[:, None]
    assert form.decode(codes[None], all_registers).isfinite().all()


@pytest.mark.parametrize(
    "form", [*IEEE, *FINITE, *FIXED, *INTEGERS, *BLOCKS, *ADAPTIVE, *LONG], ids=str
)
def test_contract(form: NumberFormat) -> None:
    check_number_format(form)


def test_the_end_of_a_word_that_float32_does_not_hold() -> None:
    form = fixed(32, 16)
    last = torch.tensor([2**31 - 1, -(2**31), 2**31 - 64], dtype=torch.int32)
    values = form.decode(last)
    assert values.tolist() == [32768.0, -32768.0, 32768.0]
    assert form.encode(values).tolist() == [2**31 - 1, -(2**31), 2**31 - 1]
    beyond = torch.tensor([1e9, -1e9, torch.inf, -torch.inf, torch.nan, 32767.998])
    kept = form.quantised(beyond)
    assert kept.tolist() == [32768.0, -32768.0, 32768.0, -32768.0, 0.0, beyond[5].item()]
    assert torch.equal(form.decode(form.encode(kept)), kept)


def test_a_wrong_register_scales_the_block() -> None:
    rows = torch.tensor([[1.0, -0.3, 0.06, 5.7]])
    form, other = block(12, 4), adaptive(8, 4)
    register = form.metadata(rows)
    codes = form.encode(form.quantised(rows, register), register)
    assert register.item() == 2 + 7
    moved = form.decode(codes, register ^ 0b100)
    assert torch.equal(moved, form.quantised(rows) * 2.0**4)
    bias = other.metadata(rows)
    assert bias.item() == 5
    codes = other.encode(other.quantised(rows, bias), bias)
    assert torch.equal(other.decode(codes, bias ^ 0x20), other.quantised(rows) * 2.0**-32)
    unheld = torch.tensor([[2.0**-11, 2.0**-12, -(2.0**-12), 2.0**30, -(2.0**30)]])
    assert other.encode(unheld, bias).tolist() == [[8, 0, 0x80, 0x7F, 0xFF]]
    beyond = other.decode(codes, bias ^ 0x80)[0] / torch.finfo(torch.float32).max
    assert beyond.tolist() == pytest.approx([1, -0.3125, 0.05859375, 1])
    assert torch.equal(other.decode(codes, bias ^ 1), other.quantised(rows) * 2.0)


def test_a_register_of_a_scale() -> None:
    form = integer(8, None).bind(2.0)
    rows = torch.tensor([[0.5, -3.0]])
    assert form.metadata(rows).view(torch.float32).tolist() == [[2.0]]
    codes = form.encode(form.quantised(rows))
    assert codes.tolist() == [[32, 128]]
    doubled = torch.tensor([[4.0]]).view(torch.int32)
    assert form.decode(codes, doubled).tolist() == [[1.0, -4.0]]
    assert form.quantised(rows, doubled).tolist() == [[0.5, -3.0]]
    assert form.encode(rows, doubled).tolist() == [[16, 256 - 96]]


def test_names_of_bits() -> None:
    named = {
        str(form): [(part.name, part.low, part.high) for part in form.fields]
        for form in (ieee(5, 10), fixed(8, 0), fixed(8, 7), block(8, 3), adaptive(8, 4), integer(8))
    }
    assert list(named.values()) == [
        [("fraction", 0, 9), ("exponent", 10, 14), ("sign", 15, 15)],
        [("integer", 0, 6), ("sign", 7, 7)],
        [("fraction", 0, 6), ("sign", 7, 7)],
        [("fraction", 0, 3), ("integer", 4, 4), ("sign", 5, 5)],
        [("fraction", 0, 2), ("exponent", 3, 6), ("sign", 7, 7)],
        [("integer", 0, 6), ("sign", 7, 7)],
    ]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: ieee(1, 3), "exponent=1 bit has no normal numbers.*give 2 to 8"),
        (lambda: ieee(0, 3), "exponent=0 bits; give 2 to 8"),
        (lambda: ieee(9, 3), "exponent=9 bits; give 2 to 8"),
        (lambda: ieee(4, 0), "fraction=0 bits; give 1 to 23"),
        (lambda: ieee(4, 24), "fraction=24 bits; give 1 to 23"),
        (lambda: ieee(8, 7, finite=True), "finite=true with exponent=8"),
        (lambda: fixed(1, 0), "word=1 bits; give 2 to 32"),
        (lambda: fixed(33, 0), "word=33 bits; give 2 to 32"),
        (lambda: fixed(8, -1), "fraction=-1 bits; give 0 to 7"),
        (lambda: fixed(8, 8), "fraction=8 bits are wider than the word.*give 0 to 7"),
        (lambda: integer(1), "width=1 bits; give 2 to 16"),
        (lambda: integer(17), "width=17 bits; give 2 to 16"),
        (lambda: integer(8, 0.0), r"scale=0\.0 is not a positive float32"),
        (lambda: integer(8, -1.0), r"scale=-1\.0 is not a positive float32"),
        (lambda: integer(8, float("nan")), "scale=nan is not a positive float32"),
        (lambda: integer(8, 1e39), "is not a positive float32"),
        (lambda: integer(8, 1e-60), "is not a positive float32"),
        (lambda: integer(8, None).bind(0.0), "is not a positive float32"),
        (lambda: integer(8, None).metadata(torch.ones(1, 1)), "profiled for each layer"),
        (lambda: integer(8, None).quantised(torch.ones(1)), "profiled for each layer"),
        (lambda: block(8, 1), "'block': exponent=1 bits; give 2 to 8"),
        (lambda: block(12, 9), "exponent=9 bits; give 2 to 8"),
        (lambda: block(4, 3), "width=4 leaves 0 bits of fraction.*give a width of 5 to 27"),
        (lambda: adaptive(8, 1), "'adaptive': exponent=1 bits; give 2 to 8"),
        (lambda: adaptive(33, 8), "width=33 leaves 24 bits.*give a width of 10 to 32"),
        (lambda: adaptive(8, 4, "batch"), "block='batch' is not one of tensor, sample, channel"),
    ],
)
def test_refused_options(make, why: str) -> None:
    with pytest.raises(ProgipError, match=why):
        make()


def test_codes_of_blocks_need_registers() -> None:
    with pytest.raises(ValueError, match="needs the registers"):
        block(8, 3).decode(torch.tensor([1]))
