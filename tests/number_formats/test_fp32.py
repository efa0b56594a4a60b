"""fp32 against NumPy's own view of a float's bits, NaN payloads and signed zeros included."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from progip.contracts import BrokenContract, check_number_format
from progip.number_formats.base import BitField
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.fp32 import FP32, Float32

WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


@given(WORDS)
def test_codes_are_the_words_of_ieee_754(words: list[int]) -> None:
    codes = np.array(words, dtype=np.uint32)
    values = FP32.decode(torch.from_numpy(codes.view(np.int32)))
    np.testing.assert_array_equal(values.numpy().view(np.uint32), codes)
    np.testing.assert_array_equal(FP32.encode(values).numpy().view(np.uint32), codes)


@given(WORDS, st.integers(0, 31))
def test_a_flipped_bit_lies_in_its_field(words: list[int], bit: int) -> None:
    values = np.array(words, dtype=np.uint32).view(np.float32)
    flipped = FP32.decode(
        FP32.encode(torch.from_numpy(values)) ^ (1 << bit if bit < 31 else -(2**31))
    )
    field = next(part.name for part in FP32.fields if part.low <= bit <= part.high)
    before, after = (x.view(np.uint32) for x in (values, flipped.numpy()))
    masks = {"sign": 0x80000000, "exponent": 0x7F800000, "fraction": 0x007FFFFF}
    assert (((before ^ after) & ~np.uint32(masks[field])) == 0).all()
    assert ((before ^ after) != 0).all()


def test_it_computes_as_the_network_does() -> None:
    network = nn.Linear(2, 2)
    assert FP32.prepare(network, list) is network
    values = torch.tensor([0.1, torch.nan, -0.0])
    assert FP32.quantised(values) is values


class Gap(Float32):
    """Fields that leave a bit out."""

    fields = (BitField("fraction", 0, 21), BitField("exponent", 23, 30), BitField("sign", 31, 31))


class Lossy(Float32):
    """Encoding that drops the last bit."""

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        return super().encode(values) & ~1


@pytest.mark.parametrize(
    ("broken", "why"), [(Gap, "fields that are not the bits 0 to 31"), (Lossy, "to another code")]
)
def test_broken_formats(broken: type[Float32], why: str) -> None:
    check_number_format(FP32)
    with pytest.raises(BrokenContract, match=why):
        check_number_format(broken(name="broken"))


class Unlike(BlockFP):
    """Registers that follow from more than what quantised rows have."""

    def metadata(self, rows: Tensor) -> Tensor:
        return super().metadata(rows) + bool((rows.view(torch.int32) & 0xFF).any())


class Silent(BlockFP):
    """Fields of a register, and no register."""

    def metadata(self, rows: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("broken", "why"), [(Unlike, "finds other metadata"), (Silent, "must have metadata where")]
)
def test_broken_metadata(broken: type[BlockFP], why: str) -> None:
    with pytest.raises(BrokenContract, match=why):
        check_number_format(broken(name="broken", width=8, exponent=4))
